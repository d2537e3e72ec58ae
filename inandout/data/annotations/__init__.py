"""Annotations of other programs: COCO, YOLO, LabelMe and Datumaro."""
