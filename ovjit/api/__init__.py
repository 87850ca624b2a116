"""The public classes, under OpenVINO's names; `ovjit` itself hands them out lazily."""
