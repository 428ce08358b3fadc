"""The audit: whether the closed form of Grad-CAM++ holds for a network, and what it is worth."""

from jaxcam._src.audit.compare import MEASURES, audit
from jaxcam._src.audit.record import CLOSED, EXACT, MAPS, POSITIVE, QUANTILES, Audit, Shares

__all__ = [
    "CLOSED",
    "EXACT",
    "MAPS",
    "MEASURES",
    "POSITIVE",
    "QUANTILES",
    "Audit",
    "Shares",
    "audit",
]
