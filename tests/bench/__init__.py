"""The benchmark: how much the operator costs and how late it is with 200 and 1,000 Endpoints. Run by `make bench`.

It measures and writes down; it asserts nothing, because time on a shared machine is no test."""
