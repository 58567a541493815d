"""Speed against peers, measured side by side: `python -m benchmarks --help`.

A case is a function that gives what to time, by contender. It stands in a module of this package
whose name `MODULES` in `__main__.py` lists:

    @case("the sum of a million numbers")
    def million():
        x = np.ones(1_000_000)
        yield "numpy", x.sum
        if torch := peer("torch"):
            yield "torch", torch.ones(1_000_000).sum
"""
