"""What Horovod 0.28.1 documents, as cases that run on every rank: the same list for every framework.

A case is a function named after what the documentation says; it takes a `Framework`. `cases_*.py` hold those that every
framework runs, `torch_cases_*.py` those of PyTorch alone; `lists.py` puts them in order, `rank_main.py` runs a list in real
ranks, and `test_torch.py` and `test_tensorflow.py` give each case its own outcome. Another framework is one adapter and one
line in `lists.py`.
"""
