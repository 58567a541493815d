"""Data: datasets, batches, transforms, and the image data sets of the course."""

from . import transforms
from .catalogue import cifar10, digits, fashion_mnist, mnist, photograph
from .dataset import Dataset, Subset, TensorDataset, random_split
from .images import ImageDataset, image_folder
from .loader import DataLoader

__all__ = [
    "DataLoader",
    "Dataset",
    "ImageDataset",
    "Subset",
    "TensorDataset",
    "cifar10",
    "digits",
    "fashion_mnist",
    "image_folder",
    "mnist",
    "photograph",
    "random_split",
    "transforms",
]
