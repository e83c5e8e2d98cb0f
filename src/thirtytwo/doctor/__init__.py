"""Check a data set before training: coded checks, each with what was found, why it matters and what to do."""

from thirtytwo.doctor.base import CHECKS, Check, Finding, Place, Severity
from thirtytwo.doctor.diagnose import Diagnosis, diagnose, examine
from thirtytwo.doctor.subject import Subject

__all__ = ["CHECKS", "Check", "Diagnosis", "Finding", "Place", "Severity", "Subject", "diagnose", "examine"]
