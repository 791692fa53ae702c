"""From a recording to HLS: what is made, by which encoder, cut, checked and described."""
