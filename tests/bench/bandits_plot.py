"""docs/bandits_regret.svg: regret against rounds, one chart a world, both axes logarithmic, theory's line dashed. Written by hand: no library."""
import math

WIDTH, HEIGHT, LEFT, TOP, SIDE = 330, 230, 64, 40, 175
COLOURS = ["#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#17becf", "#7f7f7f"]
TEXT, GRID = "#333", "#ddd"


def short(x):
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if x >= size:
            return f"{x / size:g} {unit}"
    return f"{x:g}"


def chart(title, lines, theory, left, top):
    """lines: name → [(t, regret)]; theory: (name, [(t, regret)]) or None."""
    everything = [p for line in lines.values() for p in line] + (theory[1] if theory else [])
    low_x, high_x = math.log10(min(p[0] for p in everything)), math.log10(max(p[0] for p in everything))
    low_y, high_y = math.floor(math.log10(max(1.0, min(p[1] for p in everything)))), math.ceil(math.log10(max(p[1] for p in everything)))
    place_x = lambda x: left + WIDTH * (math.log10(x) - low_x) / (high_x - low_x)
    place_y = lambda y: top + HEIGHT - HEIGHT * (math.log10(max(y, 10 ** low_y)) - low_y) / (high_y - low_y)
    out = [f'<text x="{left}" y="{top - 14}" font-size="13" font-weight="bold">{title}</text>']
    for e in range(low_y, high_y + 1):
        out.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{place_y(10 ** e):.1f}" y2="{place_y(10 ** e):.1f}" stroke="{GRID}"/>')
        out.append(f'<text x="{left - 6}" y="{place_y(10 ** e) + 4:.1f}" text-anchor="end">{short(10 ** e)}</text>')
    for e in range(math.ceil(low_x), math.floor(high_x) + 1):
        out.append(f'<line x1="{place_x(10 ** e):.1f}" x2="{place_x(10 ** e):.1f}" y1="{top}" y2="{top + HEIGHT}" stroke="{GRID}"/>')
        out.append(f'<text x="{place_x(10 ** e):.1f}" y="{top + HEIGHT + 16}" text-anchor="middle">{short(10 ** e)}</text>')
    ordered = sorted(lines.items(), key=lambda item: -item[1][-1][1])
    named = [(name, line, COLOURS[i % len(COLOURS)], "") for i, (name, line) in enumerate(ordered)]
    if theory:
        named.append((theory[0], theory[1], "#000", ' stroke-dasharray="5 4"'))
    for i, (name, line, colour, dash) in enumerate(named):
        points = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in line)
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6"{dash} points="{points}"/>')
        at = top + 8 + 17 * i
        out.append(f'<line x1="{left + WIDTH + 10}" x2="{left + WIDTH + 28}" y1="{at}" y2="{at}" stroke="{colour}" stroke-width="2"{dash}/>')
        out.append(f'<text x="{left + WIDTH + 33}" y="{at + 4}">{name}</text>')
    return out


def write(file, charts):
    """charts: (title, lines, theory), two a row."""
    wide, high = LEFT + WIDTH + SIDE, TOP + HEIGHT + 34
    rows = -(-len(charts) // 2)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * wide}" height="{rows * high}" viewBox="0 0 {2 * wide} {rows * high}" '
           f'font-family="sans-serif" font-size="11" fill="{TEXT}"><rect width="100%" height="100%" fill="white"/>']
    for i, (title, lines, theory) in enumerate(charts):
        out += chart(title, lines, theory, LEFT + i % 2 * wide, TOP + i // 2 * high)
    with open(file, "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n</svg>\n")
