"""The report: what several runs found of the same images, as a page that opens from disk.

runs          a folder of `run` or `explain`  ->  Run
judgements    a folder of `evaluate`          ->  Judgement
side_by_side  runs                            ->  Compared: one list of images, labels apart
numbers       maps                            ->  what images are sorted by; bytes
contents      all of it                       ->  what the page holds, as JSON
writing       that, and photographs           ->  the page
"""
