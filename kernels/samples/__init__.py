"""How samples lie in DDR and in the lanes, and how a core walks over them."""
