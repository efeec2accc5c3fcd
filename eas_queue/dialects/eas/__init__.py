"""The dialect of PAI-EAS queue services, as their official clients speak it."""
