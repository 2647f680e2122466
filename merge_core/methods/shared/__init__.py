"""What several methods are made of: task vectors, sparsification, sums; no method stands here."""
