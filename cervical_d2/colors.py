"""The colors of the classes in pictures and exported files."""

# RGB: the colors of Okabe and Ito, which color-blind readers can distinguish, then darker ones.
COLORS = (
    (213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233),
    (240, 228, 66), (0, 0, 0), (128, 0, 32), (64, 64, 160), (0, 90, 60),
)  # fmt: skip
