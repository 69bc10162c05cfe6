"""What can be wrong with a data set although every file is whole: leaks between splits, boxes drawn twice."""
