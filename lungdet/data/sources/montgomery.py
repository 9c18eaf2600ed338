"""The Montgomery County set (National Library of Medicine): 138 radiographs, 58 with tuberculosis."""

from lungdet.data.manifest import Sheet
from lungdet.data.sources.nlm import NLMDataModule

IMAGES, NORMAL, TUBERCULOSIS, PATIENTS = 138, 80, 58, 135
"""Counts of the whole set; patients as far as the readings tell them."""


class MontgomeryDataModule(NLMDataModule):
    """Montgomery County: 138 PA radiographs from tuberculosis screening, 80 normal and 58 with tuberculosis.

    - **Source**: US National Library of Medicine, https://lhncbc.nlm.nih.gov/LHC-downloads/dataset.html
      ("Tuberculosis Chest X-ray Image Data Sets"), archive NLM-MontgomeryCXRSet.zip. The radiographs are courtesy
      of the Department of Health and Human Services of Montgomery County, Maryland, USA.
    - **Terms**: name the source (National Library of Medicine, National Institutes of Health, Bethesda, MD, USA)
      and the county and cite the papers. The read-me of the archive asks that the set be fetched from the library,
      not passed on.
    - **Cite**: S. Jaeger, S. Candemir, S. Antani, Y.-X. J. Wang, P.-X. Lu, G. Thoma. Two public chest X-ray
      datasets for computer-aided screening of pulmonary diseases. Quant Imaging Med Surg 4(6):475-477, 2014. The
      read-me also names S. Jaeger et al. and S. Candemir et al., both IEEE Trans Med Imaging 33(2), 2014.
    - **Images**: 4020 x 4892 or 4892 x 4020, 12 bit, in 16-bit or 8-bit PNG; both shapes show an upright chest. A
      digital (CR) stationary unit. Some, mostly of children, have wide black borders.
    - **View**: PA, which Jaeger et al. 2014 and the library's page state for the whole set.
    - **Labels**: `_0` / `_1` at the end of the file's name: normal, or manifestations of tuberculosis. `_1`
      includes inactive scars and treated disease. The 14 findings of ChestX-ray14 were not looked for one by one
      (NaN).
    - **Readings**: a text an image with sex, age and what the radiologist saw.
    - **Patients**: the readings of three images say whose second or third image they are: 0117 of 0113; 0166 and
      0170 of 0162. Each group is one patient here, its visits in the order of the numbers (ages never go back along
      it), whether or not the readings are there; so 135 patients. Other pairs look alike (same sex and age,
      near-identical texts: 0254 and 0255, 0309 and 0311, 0367 and 0369, 0372 and 0375), but nothing says that they
      are one patient, and they are kept apart.
    - **Official split**: none. With so few images prefer folds, or hold the whole set out.

    Args:
        root: folder with `CXR_png/` and `ClinicalReadings/`, or with `MontgomerySet/` that holds the two.
        keys: everything that `RadiographDataModule` accepts.
    """

    name = "montgomery"
    sheets = {"montgomery": Sheet(IMAGES, labels_from="readings", abnormal="tuberculosis")}
    prefix, archive, view = "MCUCXR", "MontgomerySet", "PA"
    # Stated by the readings of 0117 ("same pt as MCUCXR_0113_1"), 0166 and 0170.
    repeated = (("0113", "0117"), ("0162", "0166", "0170"))
