"""Draw synthetic fluorescence fields whose instance labels are exact.

A field is painted as a microscope sees it: nuclei with chromatin texture, haze
around them, uneven background, blur, then photon and read noise in 8 bits. The
defaults follow DAPI and Hoechst images of the 2018 Data Science Bowl, in which
both the scale and the brightness differ much more between fields than within one.
"""

from nucleiseg.synthetic.field import draw_field, draw_fields
from nucleiseg.synthetic.placement import MIN_AREA_PX
from nucleiseg.synthetic.sample import SampleFiles, write_sample
from nucleiseg.synthetic.settings import FieldSettings

__all__ = [
    "MIN_AREA_PX",
    "FieldSettings",
    "SampleFiles",
    "draw_field",
    "draw_fields",
    "write_sample",
]
