"""`newslora bench`."""

from newslora.cli.common import OutputFlag, remarks, results


def bench(
    backbone: str = "minilm",
    /,
    *,
    task: str = "training",
    data: str = "corpus",
    tokenizer: str | None = None,
    tokens: int | None = None,
    batch_size: int = 16,
    warmup: int = 40,
    steps: int = 40,
    rounds: int = 3,
    output: OutputFlag = None,
) -> None:
    """Measure newslora's speed against the stock Trainer + PEFT: same rows and batches, in alternation, in separate processes.

    Parameters
    ----------
    backbone
        'minilm', 'roberta-base' (its architecture; speed does not depend on the weights) or a local folder.
    task
        'training' or 'prediction'.
    data
        Rows whose lengths are used, given as for data.source.
    tokenizer
        Folder of a tokenizer; by default the backbone's own, or the bundled one if the hub cannot be reached.
    tokens
        Use rows of this many random tokens in place of --data and --tokenizer.
    batch_size
        Rows per batch, on both sides.
    warmup
        Batches before the clock starts; on both sides the first batch of each length compiles kernels for it.
    steps
        Batches that are timed.
    rounds
        How often each side is measured; the median is reported, with lowest and highest.
    output
        JSON file; by default benchmarks/results/DATE-bench-TASK-BACKBONE.json.
    """
    from newslora.bench.run import BenchSettings, run_bench, write_result
    from newslora.cli.screen import bench_table

    result = run_bench(
        BenchSettings(backbone, task, data, batch_size, warmup, steps, rounds, tokenizer, tokens),
        remarks().print,
    )
    path = write_result(result, output)
    out = results()
    out.print(bench_table(result))
    out.print(f"Result: {path}", soft_wrap=True)
