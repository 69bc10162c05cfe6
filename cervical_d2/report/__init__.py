"""Pages and sheets for people; computes no figures. Imports every room but papers."""
