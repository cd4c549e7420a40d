"""What may be chosen of a picture of crystal maps, without what draws it."""

#: figures: all of them, total intensity, the brightest tracks' maps, the light image
FIGURES = ("all", "total", "maps", "light")
#: where the scan's first row is
ORIGINS = ("upper", "lower")
N_MAPS = 12
DPI = 100
