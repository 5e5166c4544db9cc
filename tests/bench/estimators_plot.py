"""docs/estimators_*.svg: several lines in one chart, axes logarithmic or not. Written by hand: no library."""
import math

WIDTH, HEIGHT, LEFT, TOP, RIGHT = 520, 300, 70, 40, 150
COLOURS = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2", "#7f7f7f", "#17becf"]
GRID, TEXT = "#ddd", "#333"


def ticks(low, high, logarithmic):
    if logarithmic:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        return [m * 10 ** e for e in powers for m in (1, 2, 5) if low * 0.999 <= m * 10 ** e <= high * 1.001]
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 5)
    return [round(step * i, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def short(x):
    return f"{x / 1000:g}k" if x >= 1000 else f"{x:g}"


def write(file, title, x_name, y_name, lines, log_x=True, log_y=True, marks=()):
    """lines: { name: [(x, y), …] }; marks: (y, text) of level lines."""
    xs = [x for line in lines.values() for x, _ in line]
    ys = [y for line in lines.values() for _, y in line] + [y for y, _ in marks]
    low_x, high_x, low_y, high_y = min(xs), max(xs), min(ys), max(ys)
    scale_x = math.log10 if log_x else float
    scale_y = math.log10 if log_y else float
    place_x = lambda x: LEFT + WIDTH * (scale_x(x) - scale_x(low_x)) / (scale_x(high_x) - scale_x(low_x))
    place_y = lambda y: TOP + HEIGHT - HEIGHT * (scale_y(y) - scale_y(low_y)) / (scale_y(high_y) - scale_y(low_y))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{TOP + HEIGHT + 50}" font-family="sans-serif" font-size="11" fill="{TEXT}">'
           f'<rect width="100%" height="100%" fill="white"/><text x="{LEFT}" y="20" font-size="13" font-weight="bold">{title}</text>']
    for x in ticks(low_x, high_x, log_x):
        out.append(f'<line x1="{place_x(x):.1f}" x2="{place_x(x):.1f}" y1="{TOP}" y2="{TOP + HEIGHT}" stroke="{GRID}"/>'
                   f'<text x="{place_x(x):.1f}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{short(x)}</text>')
    for y in ticks(low_y, high_y, log_y):
        out.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{place_y(y):.1f}" y2="{place_y(y):.1f}" stroke="{GRID}"/>'
                   f'<text x="{LEFT - 6}" y="{place_y(y) + 4:.1f}" text-anchor="end">{short(y)}</text>')
    for y, text in marks:
        out.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{place_y(y):.1f}" y2="{place_y(y):.1f}" stroke="{TEXT}" stroke-dasharray="4 3"/>'
                   f'<text x="{LEFT + WIDTH + 6}" y="{place_y(y) + 4:.1f}">{text}</text>')
    order = sorted(lines.items(), key=lambda item: place_y(item[1][-1][1]))
    at = []  # heights of the names: none stands on another, none below the chart
    for _, line in order:
        at.append(max(at[-1] + 13 if at else -math.inf, place_y(line[-1][1]) + 4))
    for i in range(len(at)):
        at[-1 - i] = min(at[-1 - i], TOP + HEIGHT + 6 - 13 * i)
    for i, (name, line) in enumerate(order):
        colour = COLOURS[i % len(COLOURS)]
        points = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in line)
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.8" points="{points}"/><text x="{LEFT + WIDTH + 6}" y="{at[i]:.1f}" fill="{colour}">{name}</text>')
    out.append(f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 36}" text-anchor="middle">{x_name}</text>'
               f'<text transform="translate(16 {TOP + HEIGHT / 2}) rotate(-90)" text-anchor="middle">{y_name}</text>')
    with open(file, "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n</svg>\n")
