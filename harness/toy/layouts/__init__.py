"""Rows and files of the four benchmarks, as their publishers lay them out, from toy videos.

Question kinds carry the nearest real task names.
"""

from harness.toy.layouts import longvideobench, lvbench, mlvu, videomme

LAYOUTS = (videomme.LAYOUT, mlvu.LAYOUT, longvideobench.LAYOUT, lvbench.LAYOUT)
