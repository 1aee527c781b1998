"""The benchmark: what operator and router cost, how late they are, and what is lost. Run by `make bench`.

It measures and writes down; it asserts nothing, because time on a shared machine is no test."""
