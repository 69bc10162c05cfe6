"""What the published tables print, once, as data; and the weights that their experiments start from."""
