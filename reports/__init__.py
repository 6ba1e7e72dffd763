"""Reports: what people read after a run.

``python -m reports`` turns records (``harness.verdict``) and artifacts (``harness.artifacts``) into
one self-contained ``reports/index.html``; ``python -m reports.demo`` runs the matrix first.
"""
