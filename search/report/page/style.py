"""How the page looks: by light, in the dark, on paper, on a telephone; no font from elsewhere.

The rules are in ``page.css``; colours that hang on light and dark are made here.
"""

from __future__ import annotations

from importlib import resources

LIGHT = {
    "bg": "#ffffff",
    "card": "#f6f7f9",
    "ink": "#1c2127",
    "soft": "#59626d",
    "rule": "#d9dee4",
    "winner": "#c8500a",
    "blue": "#0068a8",
    "green": "#00805c",
    "orange": "#b87900",
    "grey": "#6d7680",
    "violet": "#8d4f99",
    "shade": "#00805c1f",
}
DARK = {
    "bg": "#14181d",
    "card": "#1d2329",
    "ink": "#e7eaee",
    "soft": "#a4adb8",
    "rule": "#363e47",
    "winner": "#ff9250",
    "blue": "#62b6f0",
    "green": "#3fcb9d",
    "orange": "#f0b840",
    "grey": "#98a2ad",
    "violet": "#d59ae0",
    "shade": "#3fcb9d29",
}
SHADES = 16  # of a colour scale, from 0 to this
Colour = tuple[int, int, int]
SEQUENTIAL = {
    "light": ((238, 243, 248), (107, 174, 214), (8, 48, 107)),
    "dark": ((34, 42, 51), (38, 112, 170), (190, 225, 255)),
}
DIVERGING = {
    "light": ((178, 24, 43), (240, 240, 240), (33, 102, 172)),
    "dark": ((255, 128, 110), (42, 48, 55), (110, 180, 250)),
}


def shade(scale: tuple[Colour, ...], share: float) -> str:
    """Return ``#rrggbb`` at a share of the way along a scale."""
    at = share * (len(scale) - 1)
    i = min(int(at), len(scale) - 2)
    pairs = zip(scale[i], scale[i + 1], strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (at - i)):02x}" for a, b in pairs)


def _shades(mode: str) -> str:
    return " ".join(
        f".{letter}{i} {{ background: {shade(scale[mode], i / SHADES)}; }}"
        for letter, scale in (("h", SEQUENTIAL), ("d", DIVERGING))
        for i in range(SHADES + 1)
    )


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def style() -> str:
    """Return the rules of the page."""
    rules = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    dark = f":root {{ {_variables(DARK)} }}\n{_shades('dark')}"
    return (
        f":root {{ {_variables(LIGHT)} }}\n{rules}\n{_shades('light')}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ {dark} }}"
    )
