"""docs/index_scale.svg: what the live table costs as it grows, one small logarithmic chart for each measure. Written by hand: no library."""
import math

WIDTH, HEIGHT, LEFT, TOP = 300, 170, 64, 34
LINE, TEXT, GRID = "#1f77b4", "#333", "#ddd"


def ticks(low, high):
    return [10 ** e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def short(x):
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if x >= size:
            return f"{x / size:g} {unit}"
    return f"{x:.3g}"


def chart(title, points, left, top):
    """points: (number of items, value), rising in the first."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    marks_y = ticks(min(ys), max(ys) * 1.0001)
    if len(marks_y) < 2:
        marks_y.append(marks_y[-1] * 10)
    low_x, high_x, low_y, high_y = math.log10(min(xs)), math.log10(max(xs)), math.log10(marks_y[0]), math.log10(marks_y[-1])
    place_x = lambda x: left + (WIDTH * (math.log10(x) - low_x) / ((high_x - low_x) or 1))
    place_y = lambda y: top + HEIGHT - HEIGHT * (math.log10(y) - low_y) / (high_y - low_y)
    out = [f'<text x="{left}" y="{top - 12}" font-size="13" font-weight="bold">{title}</text>']
    for y in marks_y:
        out.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{place_y(y):.1f}" y2="{place_y(y):.1f}" stroke="{GRID}"/>')
        out.append(f'<text x="{left - 6}" y="{place_y(y) + 4:.1f}" text-anchor="end">{short(y)}</text>')
    for x, y in points:
        out.append(f'<text x="{place_x(x):.1f}" y="{top + HEIGHT + 16}" text-anchor="middle">{short(x)}</text>')
        out.append(f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="3.5" fill="{LINE}"/>')
        below, first = place_y(y) < top + 14, x == xs[0]
        at = f'x="{place_x(x) + 6 * first:.1f}" y="{place_y(y) + (18 if below else -8):.1f}" text-anchor="{"start" if first else "middle"}"'
        out.append(f'<text {at}>{short(float(f"{y:.3g}"))}</text>')
    line = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in points)
    out.append(f'<polyline fill="none" stroke="{LINE}" stroke-width="1.5" points="{line}"/>')
    return out


def write(file, charts):
    """charts: (title, points), two a row."""
    wide, high = LEFT + WIDTH + 40, TOP + HEIGHT + 40
    rows = -(-len(charts) // 2)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * wide}" height="{rows * high}" viewBox="0 0 {2 * wide} {rows * high}" '
           f'font-family="sans-serif" font-size="11" fill="{TEXT}"><rect width="100%" height="100%" fill="white"/>']
    for i, (title, points) in enumerate(charts):
        out += chart(title, points, LEFT + i % 2 * wide, TOP + i // 2 * high)
    with open(file, "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n</svg>\n")
