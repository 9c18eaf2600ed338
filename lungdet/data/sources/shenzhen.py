"""The Shenzhen set (National Library of Medicine): 662 radiographs, 336 with tuberculosis."""

from lungdet.data.manifest import Sheet
from lungdet.data.sources.nlm import NLMDataModule

IMAGES, NORMAL, TUBERCULOSIS = 662, 326, 336
"""Counts of the whole set; nothing says that a patient has several images."""


class ShenzhenDataModule(NLMDataModule):
    """Shenzhen: 662 frontal radiographs from a hospital's out-patient clinics, 326 normal and 336 with tuberculosis.

    - **Source**: US National Library of Medicine, https://lhncbc.nlm.nih.gov/LHC-downloads/dataset.html
      ("Tuberculosis Chest X-ray Image Data Sets"), archive ChinaSet_AllFiles.zip (about 3.6 GB). Taken at Shenzhen
      No. 3 People's Hospital, Guangdong Medical College, mostly in September 2012.
    - **Terms**: name the source (National Library of Medicine, National Institutes of Health, Bethesda, MD, USA,
      and Shenzhen No. 3 People's Hospital, Guangdong Medical College, Shenzhen, China) and cite the papers.
    - **Cite**: S. Jaeger, S. Candemir, S. Antani, Y.-X. J. Wang, P.-X. Lu, G. Thoma. Two public chest X-ray
      datasets for computer-aided screening of pulmonary diseases. Quant Imaging Med Surg 4(6):475-477, 2014. The
      read-me also names S. Jaeger et al. and S. Candemir et al., both IEEE Trans Med Imaging 33(2), 2014.
    - **Images**: about 3000 x 3000 PNG of 8 bit, each of its own size; grey, palette or RGB with three equal
      channels.
    - **View**: not stated for an image, so unknown: most are PA, the children's are AP (Jaeger et al. 2014).
    - **Labels**: `_0` / `_1` at the end of the file's name: normal, or manifestations of tuberculosis. The files
      are what counts: 326 `_0` and 336 `_1`; some texts swap the two numbers. The 14 findings of ChestX-ray14 were
      not looked for one by one (NaN).
    - **Readings**: a text an image, its first line sex and age ("male 45yrs"; months and days for infants), then
      what the radiologist saw.
    - **Patients**: one image each, as far as anything says.
    - **Official split**: none.

    Args:
        root: folder with `CXR_png/` and `ClinicalReadings/`, or with `ChinaSet_AllFiles/` that holds the two.
        keys: everything that `RadiographDataModule` accepts.
    """

    name = "shenzhen"
    sheets = {"shenzhen": Sheet(IMAGES, labels_from="readings", abnormal="tuberculosis")}
    prefix, archive = "CHNCXR", "ChinaSet_AllFiles"
