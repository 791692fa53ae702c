"""From a recording to HLS: what is made, by which encoder, cut, stored, checked and described."""
