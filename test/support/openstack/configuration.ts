/** What a private Keystone and Glance are told. Everything lies in one directory; nothing of /etc is read. */

export interface Knobs {
  /** How long Glance believes in a token without asking Keystone; default 300. */
  tokenCacheSeconds?: number;
  /** Glance's quota for each project, e.g. `8MB`; default none. */
  userQuota?: string;
  /** The largest image in bytes; default 1 TiB. */
  imageSizeCap?: number;
  /** Further lines of `[DEFAULT]` in glance-api.conf. */
  glanceExtra?: string;
}

export interface Places {
  /** The address that both listen on. */
  address: string;
  keystone: number;
  glance: number;
}

export function configurationFiles(root: string, places: Places, knobs: Knobs): Record<string, string> {
  return {
    'keystone.conf': keystone(root, places),
    'glance-api.conf': glance(root, places, knobs),
    'glance-api-paste.ini': PASTE,
    // Common properties as strings, as the packaged schema-image.json has them.
    'schema-image.json': JSON.stringify({
      kernel_id: { type: ['null', 'string'] },
      ramdisk_id: { type: ['null', 'string'] },
      architecture: { type: 'string' },
      os_distro: { type: 'string' },
      os_version: { type: 'string' },
    }),
  };
}

function keystone(root: string, places: Places): string {
  return `[DEFAULT]
use_stderr = true
public_endpoint = http://${places.address}:${places.keystone}
[database]
connection = sqlite:///${root}/keystone.db
sqlite_synchronous = false
[token]
provider = fernet
expiration = 3600
[fernet_tokens]
key_repository = ${root}/fernet
[fernet_receipts]
key_repository = ${root}/fernet
[credential]
key_repository = ${root}/credential
[cache]
enabled = true
backend = dogpile.cache.memory
[identity]
password_hash_rounds = 4
[oslo_policy]
policy_dirs = ${root}/policy.d
`;
}

function glance(root: string, places: Places, knobs: Knobs): string {
  // workers = 0: with one or more, glance-api forks and kills its whole process group on SIGTERM.
  return `[DEFAULT]
bind_host = ${places.address}
bind_port = ${places.glance}
public_endpoint = http://${places.address}:${places.glance}
workers = 0
use_stderr = true
enabled_backends = file:file
node_staging_uri = file://${root}/staging
enabled_import_methods = [glance-direct,web-download]
enforce_secure_rbac = true
image_size_cap = ${knobs.imageSizeCap ?? 1024 ** 4}
user_storage_quota = ${knobs.userQuota ?? '0'}
${knobs.glanceExtra ?? ''}
[database]
connection = sqlite:///${root}/glance.db
sqlite_synchronous = false
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = ${root}/images
[os_glance_staging_store]
filesystem_store_datadir = ${root}/staging
[os_glance_tasks_store]
filesystem_store_datadir = ${root}/tasks
[task]
work_dir = ${root}/tasks
[keystone_authtoken]
www_authenticate_uri = http://${places.address}:${places.keystone}
auth_url = http://${places.address}:${places.keystone}
auth_type = password
user_domain_name = Default
project_domain_name = Default
project_name = service
username = glance
password = glance-password
service_token_roles_required = true
token_cache_time = ${knobs.tokenCacheSeconds ?? 300}
[oslo_concurrency]
lock_path = ${root}/lock
[oslo_policy]
enforce_new_defaults = true
policy_dirs = ${root}/policy.d
[paste_deploy]
flavor = keystone
config_file = ${root}/glance-api-paste.ini
`;
}

const PASTE = `[pipeline:glance-api-keystone]
pipeline = healthcheck http_proxy_to_wsgi versionnegotiation authtoken context rootapp
[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v2: apiv2app
[app:apiversions]
paste.app_factory = glance.api.versions:create_resource
[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory
[filter:healthcheck]
paste.filter_factory = oslo_middleware:Healthcheck.factory
backends = disable_by_file
disable_by_file_path = disabled
[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
delay_auth_decision = true
[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
[filter:http_proxy_to_wsgi]
paste.filter_factory = oslo_middleware:HTTPProxyToWSGI.factory
`;
