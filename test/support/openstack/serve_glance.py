"""Glance's API server in one process. usage: serve_glance.py DIRECTORY"""
import ctypes

ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: a killed test run leaves no server behind

import os
import sqlite3
import subprocess
import sys

ROOT = sys.argv[1]
CONFIGURATION = os.path.join(ROOT, 'glance-api.conf')
DATABASE = os.path.join(ROOT, 'glance.db')
SYNC = '''
import sys
from glance.cmd.manage import main
sys.argv = ['glance-manage', '--config-file', sys.argv[1], 'db_sync']
sys.exit(main())
'''

if not os.path.exists(DATABASE):
    # In a child of its own: what db_sync imports must not be in the process that eventlet patches.
    subprocess.run([sys.executable, '-c', SYNC, CONFIGURATION], check=True)
    with sqlite3.connect(DATABASE) as database:
        database.execute('pragma journal_mode=wal')

sys.argv = ['glance-api', '--config-file', CONFIGURATION, '--config-dir', os.path.join(ROOT, 'policy.d')]
sys.dont_write_bytecode = True
os.chdir(ROOT)  # schema-image.json is looked for here

from glance.cmd.api import main

main()
