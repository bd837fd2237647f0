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
    """Measure newslora beside the stock Trainer + PEFT: same rows, same batches, by turns, each in its own process.

    Parameters
    ----------
    backbone
        'minilm', 'roberta-base' (its architecture; speed does not depend on the weights) or a local folder.
    task
        'training' or 'prediction'.
    data
        Rows whose lengths count; as data.source.
    tokenizer
        Folder of the tokenizer that splits them; by default the backbone's own, or without a hub the bundled one.
    tokens
        Tokens of every row, drawn at random; --data and --tokenizer are not read then.
    batch_size
        Rows a batch, on both sides.
    warmup
        Batches before the clock starts; the first of each length compiles products for it, on both sides.
    steps
        Batches on the clock.
    rounds
        Times each side is measured; the median counts, the spread is kept.
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
