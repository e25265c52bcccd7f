SELECT slide_id, n_blocks, block_xx, block_xn, block_nn, window_xx, window_xn, window_nn
FROM slides
