"""Tables of ratios in Markdown."""

import statistics


def progress(workload, number, clients, name, result):
    return (
        f"{workload} round {number}, {clients:>2} clients, {name:<38} {result.per_second:>8.0f}/s  "
        f"p50 {1e3 * result.quantile(0.5):>7.2f} ms  p99 {1e3 * result.quantile(0.99):>7.2f} ms  "
        f"CPU {1e3 * result.cpu_per_1000:>7.0f} ms/1000  client {result.client_cpu / result.seconds:>4.0%}  "
        f"failed {result.failures}"
    )


FIGURES = {
    "requests/s": lambda result: result.per_second,
    "p50": lambda result: result.quantile(0.5),
    "p99": lambda result: result.quantile(0.99),
    "CPU per request": lambda result: result.cpu_per_1000,
}


def ratio(figure, results, base):
    """The median over the rounds of the ratio to the base, with the smallest and the largest."""
    return median_and_range([figure(a) / figure(b) for a, b in zip(results, base, strict=True)])


def median_and_range(ratios):
    return f"{short(statistics.median(ratios))} ({short(min(ratios))}–{short(max(ratios))})"


def short(number):
    """Two significant digits."""
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}" if number >= 1.95 else f"{number:.2f}"


def absolute_table(workload, results):
    """Requests per second and CPU time, with their ratios to the first contender in the same round."""
    base_name = workload.contenders[0].name
    lines = [
        f"### {workload.name}",
        "",
        f"{workload.description} Ratios are relative to {base_name}:",
        "",
        "| clients | server | requests/s | ratio | CPU s per 1000 texts | ratio | failures |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    figures = [FIGURES["requests/s"], FIGURES["CPU per request"]]
    for (clients, name), cell in results.items():
        base = results[clients, base_name]
        medians = [statistics.median(map(figure, cell)) for figure in figures]
        ratios = [ratio(figure, cell, base) for figure in figures]
        per_second, cpu = f"{medians[0]:.1f} | {ratios[0]}", f"{medians[1]:.2f} | {ratios[1]}"
        failures = sum(result.failures for result in cell)
        lines.append(f"| {clients} | {name} | {per_second} | {cpu} | {failures} |")
    return "\n".join(lines)


def table(workload, results):
    """Each figure relative to the first contender, in the same round."""
    base_name = workload.contenders[0].name
    names = [contender.name for contender in workload.contenders]
    lines = [
        f"### {workload.name}",
        "",
        f"{workload.description} Relative to {base_name}:",
        "",
        f"| clients | server | {' | '.join(FIGURES)} | failures |",
        f"| --- | --- | {' | '.join('---' for _ in FIGURES)} | --- |",
    ]
    for clients in dict.fromkeys(count for count, _ in results):
        base = results[clients, base_name]
        for name in names:
            cell = results[clients, name]
            failures = sum(result.failures for result in cell)
            if name == base_name and failures == 0:
                continue
            figures = [ratio(figure, cell, base) for figure in FIGURES.values()]
            lines.append(f"| {clients} | {name} | {' | '.join(figures)} | {failures} |")
    return "\n".join(lines)
