"""The commits at which the catalogue reads the hub's data sets: one a repository, whatever the number of its tasks."""

from xadapt.tasks.spec import HubSource

# commits that public code reads these data at; cosmos_qa's is one of refs/convert/parquet, main has a script alone
REVISIONS = {
    "allenai/cosmos_qa": "ed50fe83db62b355759053b1cd5eef344ee371e0",
    "facebook/anli": "8e4813d81f46d313dac7892e1c28076917cfcdf9",
    "facebook/xnli": "b8dd5d7af51114dbda02c0e3f6133f332186418e",
    "google-research-datasets/paws-x": "4cd8187c404bda33cb1f62b49b001115862acf37",
    "google/xquad": "51adfef1c1287aab1d2d91b5bead9bcfb9c68583",
    "google/xtreme": "ec5f1f46e9af79639a90684a7a70a956c4998f04",
    "nyu-mll/glue": "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
    "rajpurkar/squad": "7b6d24c440a36b6815f21b70d25016731768db1f",
    "rajpurkar/squad_v2": "3ffb306f725f7d2ce8394bc1873b24868140c412",
    "Rowan/hellaswag": "218ec52e09a7e7462a5400043bb9a69a41d06b76",
    "stanfordnlp/snli": "cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
    "tau/commonsense_qa": "94630fe30dad47192a8546eb75f094926d47e155",
}


def pinned(dataset: str, config: str, licence: str, *, branch: str = "main", id_prefix: str = "") -> HubSource:
    """A data set of the hub at the catalogue's commit."""
    return HubSource(
        dataset=dataset, config=config, licence=licence, revision=REVISIONS[dataset], branch=branch, id_prefix=id_prefix
    )
