"""Keystone's own WSGI application on one port. usage: serve_keystone.py DIRECTORY ADDRESS KEYSTONE_PORT GLANCE_PORT

The first start makes the schema and the accounts; a later one (or one on a copied database) only moves the catalog to the
ports of this run. One operating system thread with green threads: with real threads SQLAlchemy closes a SQLite connection
in another thread than the one that opened it, and a request fails now and then.
"""
import ctypes

ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: a killed test run leaves no server behind

import eventlet

eventlet.hubs.get_hub()
eventlet.monkey_patch()

import os
import sqlite3
import sys
import uuid

from eventlet import wsgi
from keystone.server.flask import core

ROOT, ADDRESS, KEYSTONE_PORT, GLANCE_PORT = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
DATABASE = os.path.join(ROOT, 'keystone.db')
FIRST = not os.path.exists(DATABASE)
IDENTITY_URL = 'http://%s:%d/v3/' % (ADDRESS, KEYSTONE_PORT)
IMAGE_URL = 'http://%s:%d' % (ADDRESS, GLANCE_PORT)
ACCOUNTS = (  # user (its project has the same name), password, role
    ('glance', 'glance-password', 'admin', 'service'),
    ('demo', 'demo-password', 'member', 'demo'),
    ('other', 'other-password', 'member', 'other'),
)
sys.argv = ['keystone']  # oslo.config reads the command line


def schema():
    """Runs once the configuration is known and before any backend opens the database."""
    if not FIRST:
        return
    from keystone.common.sql import upgrades

    upgrades.offline_sync_database_to_version(None)
    # Without a write-ahead log an open reader makes the next writer fail with "database is locked".
    with sqlite3.connect(DATABASE) as database:
        database.execute('pragma journal_mode=wal')


application = core.initialize_application(
    'public', post_log_configured_function=schema, config_files=[os.path.join(ROOT, 'keystone.conf')]
)


def seed():
    from keystone.cmd import bootstrap
    from keystone.common import provider_api
    from keystone.server import backends

    backends.load_backends = lambda: None  # the application has them already
    start = bootstrap.Bootstrapper()
    start.admin_username, start.admin_password = 'admin', 'admin-password'
    start.project_name, start.admin_role_name, start.immutable_roles = 'admin', 'admin', True
    start.service_name, start.region_id = 'keystone', 'RegionOne'
    start.public_url = start.internal_url = start.admin_url = IDENTITY_URL
    start.bootstrap()

    api = provider_api.ProviderAPIs
    roles = {'admin': start.admin_role_id, 'member': start.member_role_id}
    for user, password, role, project in ACCOUNTS:
        project_id = uuid.uuid4().hex
        api.resource_api.create_project(project_id, {
            'id': project_id, 'name': project, 'domain_id': 'default', 'description': '', 'enabled': True, 'is_domain': False,
        })
        made = api.identity_api.create_user({'name': user, 'password': password, 'domain_id': 'default', 'enabled': True})
        api.assignment_api.add_role_to_user_and_project(made['id'], project_id, roles[role])

    service = uuid.uuid4().hex
    api.catalog_api.create_service(service, {'id': service, 'type': 'image', 'name': 'glance', 'enabled': True})
    for interface in ('public', 'internal', 'admin'):
        endpoint = uuid.uuid4().hex
        api.catalog_api.create_endpoint(endpoint, {
            'id': endpoint, 'service_id': service, 'region_id': 'RegionOne', 'interface': interface, 'enabled': True,
            'url': IMAGE_URL,
        })


def move_catalog():
    move = 'update endpoint set url = ? where service_id in (select id from service where type = ?)'
    with sqlite3.connect(DATABASE, timeout=10) as database:
        database.execute(move, (IDENTITY_URL, 'identity'))
        database.execute(move, (IMAGE_URL, 'image'))


seed() if FIRST else move_catalog()
wsgi.server(
    eventlet.listen((ADDRESS, KEYSTONE_PORT), backlog=128), application, log_output=True, keepalive=True, socket_timeout=60
)
