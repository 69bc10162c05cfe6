"""The commands: `cervical-d2 NAME`, or each file here as a script. The wheel ships this folder as cervical_d2_tools."""
