"""Packs image lists into records: python tools/pack.py PREFIX ROOT --resize 256 --quality 90 --workers 2."""
from gluon_ft.cli.records import pack

if __name__ == "__main__":
    pack.main(prog_name="pack.py")
