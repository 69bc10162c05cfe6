"""The colors of classes, in pictures and in files for other programs."""

# Okabe and Ito's colors, which color-blind people can tell apart, then darker ones; RGB.
COLORS = (
    (213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233),
    (240, 228, 66), (0, 0, 0), (128, 0, 32), (64, 64, 160), (0, 90, 60),
)  # fmt: skip
