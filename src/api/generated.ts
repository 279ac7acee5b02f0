/** Made from crds/ by scripts/generate-types.ts; `npm run generate` makes it anew. Do not edit. */

/**
 * What is wanted.
 */
export interface VMImageSpec {
  /**
   * The image's identity across versions, namespaces' renames and rebuilds of the cluster; any string. Immutable, also its absence. Two VMImages of a namespace with the same guid: the older serves, the other is Stalled with reason GuidInUse. Default: a UUID made from the instance's name, the namespace and the name, shown in status.guid. Example: 9394ca15-5a6a-4f0f-8f8c-2a54f7a3a3f3.
   */
  guid?: string;
  /**
   * Where the bytes of the disk are. Exactly one of the members.
   */
  source: ImageSource;
  /**
   * Checksums of the file as it is published, so before decompression. Every one given is compared; at least one of checksums and contentChecksums is needed, and sha256 or sha512 among them unless verification says otherwise. Upper and lower case mean the same.
   */
  checksums?: Checksums;
  /**
   * Checksums of the bytes after decompression, where the publisher names those. Compared as well as checksums. Upper and lower case mean the same.
   */
  contentChecksums?: Checksums;
  /**
   * How the published file is compressed. Default: Auto, the file's first bytes tell. Anything else must agree with them.
   */
  compression: 'Auto' | 'None' | 'Gzip' | 'Bzip2' | 'Xz' | 'Zstd';
  /**
   * Format of the disk, after decompression. Default: Auto, the disk's bytes tell. Anything else must agree with them; a raw disk without partition table or file system needs Raw.
   */
  format: 'Auto' | 'Raw' | 'Qcow2' | 'Vmdk' | 'Vdi' | 'Vhd' | 'Vhdx' | 'Ova' | 'Iso';
  /**
   * A kernel (or, in spec.ramdisk, a ramdisk) that boots the disk, registered as an image of its own and named by the disk's registration.
   */
  kernel?: BootPart;
  /**
   * The ramdisk that the kernel loads. Only with kernel.
   */
  ramdisk?: BootPart;
  /**
   * What may be left unproven. A site may forbid either, see ImageSite.spec.verification.
   */
  verification: VerificationPolicy;
  /**
   * How the image is registered at every site. A site's own registration overrides it field by field.
   */
  registration: RegistrationSpec;
  /**
   * The sites that get the image, by the names of their ImageSites. At most 64; may be empty. Exactly one of sites and siteSelector.
   */
  sites?: SiteTarget[];
  /**
   * Labels of the ImageSites that get the image; {} means every site that admits the namespace. A site that is no longer matched keeps its row and its image until a person confirms that it may go (imageproxy confirm-removal). Exactly one of sites and siteSelector.
   */
  siteSelector?: LabelSelector;
  /**
   * Deactivated takes the image out of service at every site and keeps it: the switch for an image with a hole in it. Default: Active.
   */
  state: 'Active' | 'Deactivated';
  /**
   * When the image goes out of service, RFC 3339. Default: never. Example: "2027-04-30T00:00:00Z".
   */
  expiresAt?: string;
  /**
   * What then happens to the registrations: Deactivate keeps them out of service, Delete removes them, Retain leaves them as they are. Default: Deactivate.
   */
  onExpiry: 'Deactivate' | 'Delete' | 'Retain';
  /**
   * What happens to the registrations when the VMImage is deleted or a site is removed from it: Delete removes them, Retain leaves them in the cloud. May be changed while the object is terminating. Default: Delete.
   */
  deletionPolicy: 'Delete' | 'Retain';
  /**
   * How many replaced registrations each site keeps, deactivated and hidden, so that going back to them needs no upload; 0 to 10. Default: 1.
   */
  history: number;
  /**
   * Whether ImageProxy leaves the image alone: nothing is fetched, registered, repaired or expired until it is false again. Deletion still works. Default: false.
   */
  suspend: boolean;
}
/**
 * Where the bytes of the disk are. Exactly one of the members.
 */
export interface ImageSource {
  /**
   * A file on web servers.
   */
  http?: HttpSource;
  /**
   * A BitTorrent swarm of one file. The checksums of the spec prove the file; the swarm's own hashes only help to fetch it.
   */
  torrent?: TorrentSource;
  /**
   * An object of an S3 store.
   */
  s3?: S3Source;
  /**
   * An artifact of an OCI registry (containerDisk or ORAS) whose only layer is the file.
   */
  oci?: OciSource;
  /**
   * A file below a directory that the operator of the controller has opened with --file-root NAME=PATH.
   */
  file?: FileSource;
  /**
   * An ORCA image metafile: an XML document that names the disk, and with it a kernel and a ramdisk, by URL and checksum. Give at least one checksum of the metafile itself.
   */
  metafile?: MetafileSource;
}
/**
 * A file on web servers.
 */
export interface HttpSource {
  /**
   * Where the file is: http or https. The first is asked first; the others are mirrors of the same bytes, tried in this order. At most 16. User names, passwords and tokens belong into the Secret of secretRef. Example: [https://cloud-images.ubuntu.com/noble/current/noble-server-cloudimg-amd64.img].
   */
  urls: string[];
  /**
   * A Secret of the same namespace with the credentials. Keys: username and password, or token (sent as Bearer), or headers (one `Name: value` a line); tls.crt and tls.key for a client certificate. Its annotation imageproxy.dev/hosts says to which hosts it may be sent; without it the Secret is refused.
   */
  secretRef?: SecretReference;
  /**
   * Certificates (PEM) that are trusted for this server, beside the public authorities. In the same namespace.
   */
  caRef?: CaReference;
  /**
   * Further request headers: User-Agent, Accept, Accept-Language, and X-… whose name speaks of no credential. At most 16. What is secret belongs into the Secret of secretRef. Example: {X-Site: cern}.
   */
  headers?: {
    [k: string]: string;
  };
}
/**
 * A Secret of the same namespace with the credentials. Keys: username and password, or token (sent as Bearer), or headers (one `Name: value` a line); tls.crt and tls.key for a client certificate. Its annotation imageproxy.dev/hosts says to which hosts it may be sent; without it the Secret is refused.
 */
export interface SecretReference {
  /**
   * Name of the object. Example: mirror-credentials.
   */
  name: string;
}
/**
 * Certificates (PEM) that are trusted for this server, beside the public authorities. In the same namespace.
 */
export interface CaReference {
  /**
   * What holds the certificates, ConfigMap or Secret.
   */
  kind: 'ConfigMap' | 'Secret';
  /**
   * Name of the object. Example: mirror-credentials.
   */
  name: string;
  /**
   * Key within it. Default: ca.crt.
   */
  key: string;
}
/**
 * A BitTorrent swarm of one file. The checksums of the spec prove the file; the swarm's own hashes only help to fetch it.
 */
export interface TorrentSource {
  /**
   * A magnet link with the info hash. Example: magnet:?xt=urn:btih:c9e15763f722f23e98a29decdfae341b98d53056.
   */
  magnet?: string;
  /**
   * Where the .torrent file is: http or https.
   */
  url?: string;
  /**
   * Web servers that hold the same file; http or https. At most 16.
   */
  webSeeds?: string[];
}
/**
 * An object of an S3 store.
 */
export interface S3Source {
  /**
   * Address of the store. Default: Amazon's of the region. Example: https://s3.cern.ch.
   */
  endpoint?: string;
  /**
   * Name of the bucket.
   */
  bucket: string;
  /**
   * Name of the object. Example: images/noble.qcow2.
   */
  key: string;
  /**
   * Region of the bucket. Example: eu-central-1.
   */
  region?: string;
  /**
   * Version of the object. Default: the latest.
   */
  versionId?: string;
  /**
   * A Secret of the same namespace with the keys accessKeyId, secretAccessKey and, where it is needed, sessionToken. Its annotation imageproxy.dev/hosts says to which hosts it may be sent. Default: anonymous.
   */
  secretRef?: SecretReference;
  /**
   * Certificates (PEM) that are trusted for this server, beside the public authorities. In the same namespace.
   */
  caRef?: CaReference;
}
/**
 * An artifact of an OCI registry (containerDisk or ORAS) whose only layer is the file.
 */
export interface OciSource {
  /**
   * Registry, repository and tag or digest. Example: quay.io/containerdisks/fedora:41.
   */
  reference: string;
  /**
   * A Secret of the same namespace, of type kubernetes.io/dockerconfigjson. Its annotation imageproxy.dev/hosts says to which registries it may be sent. Default: anonymous.
   */
  secretRef?: SecretReference;
  /**
   * Certificates (PEM) that are trusted for this server, beside the public authorities. In the same namespace.
   */
  caRef?: CaReference;
}
/**
 * A file below a directory that the operator of the controller has opened with --file-root NAME=PATH.
 */
export interface FileSource {
  /**
   * Name of the root in the controller's configuration. Example: archive.
   */
  root: string;
  /**
   * Path below the root. Example: debian/12/disk.qcow2.
   */
  path: string;
}
/**
 * An ORCA image metafile: an XML document that names the disk, and with it a kernel and a ramdisk, by URL and checksum. Give at least one checksum of the metafile itself.
 */
export interface MetafileSource {
  /**
   * Where the metafile is: http or https.
   */
  url: string;
  /**
   * SHA-256, 64 hexadecimal digits.
   */
  sha256?: string;
  /**
   * SHA-1, 40 hexadecimal digits. Alone only with verification.allowWeak.
   */
  sha1?: string;
  /**
   * A Secret of the same namespace with the credentials. Keys: username and password, or token (sent as Bearer), or headers (one `Name: value` a line); tls.crt and tls.key for a client certificate. Its annotation imageproxy.dev/hosts says to which hosts it may be sent; without it the Secret is refused.
   */
  secretRef?: SecretReference;
  /**
   * Certificates (PEM) that are trusted for this server, beside the public authorities. In the same namespace.
   */
  caRef?: CaReference;
  /**
   * Further request headers: User-Agent, Accept, Accept-Language, and X-… whose name speaks of no credential. At most 16. What is secret belongs into the Secret of secretRef. Example: {X-Site: cern}.
   */
  headers?: {
    [k: string]: string;
  };
}
/**
 * Checksums of the file as it is published, so before decompression. Every one given is compared; at least one of checksums and contentChecksums is needed, and sha256 or sha512 among them unless verification says otherwise. Upper and lower case mean the same.
 */
export interface Checksums {
  /**
   * SHA-512, 128 hexadecimal digits.
   */
  sha512?: string;
  /**
   * SHA-256, 64 hexadecimal digits.
   */
  sha256?: string;
  /**
   * SHA-1, 40 hexadecimal digits. Alone only with verification.allowWeak.
   */
  sha1?: string;
  /**
   * MD5, 32 hexadecimal digits. Alone only with verification.allowWeak.
   */
  md5?: string;
}
/**
 * A kernel (or, in spec.ramdisk, a ramdisk) that boots the disk, registered as an image of its own and named by the disk's registration.
 */
export interface BootPart {
  /**
   * Where the bytes are. Exactly one of the members.
   */
  source: BootPartSource;
  /**
   * Checksums of the file as it is published, so before decompression. Every one given is compared; at least one of checksums and contentChecksums is needed, and sha256 or sha512 among them unless verification says otherwise. Upper and lower case mean the same.
   */
  checksums?: Checksums;
  /**
   * Checksums of the bytes after decompression. A kernel's own compression is part of it and does not count here.
   */
  contentChecksums?: Checksums;
  /**
   * How the published file is compressed. Default: None, for kernels and ramdisks are compressed files that are registered as they are; anything else decompresses them.
   */
  compression: 'Auto' | 'None' | 'Gzip' | 'Bzip2' | 'Xz' | 'Zstd';
}
/**
 * Where the bytes are. Exactly one of the members.
 */
export interface BootPartSource {
  /**
   * A file on web servers.
   */
  http?: HttpSource;
  /**
   * An object of an S3 store.
   */
  s3?: S3Source;
  /**
   * An artifact of an OCI registry (containerDisk or ORAS) whose only layer is the file.
   */
  oci?: OciSource;
  /**
   * A file below a directory that the operator of the controller has opened with --file-root NAME=PATH.
   */
  file?: FileSource;
}
/**
 * What may be left unproven. A site may forbid either, see ImageSite.spec.verification.
 */
export interface VerificationPolicy {
  /**
   * Whether sha1 or md5 alone will do as a proof. They find a file again, but collisions can be made. Default: false.
   */
  allowWeak: boolean;
  /**
   * Whether the bytes may be taken without any checksum. Whoever controls the origin or the way to it then controls the image. Checksums that are given are compared all the same. Default: false.
   */
  insecureSkipVerify: boolean;
}
/**
 * How the image is registered at every site. A site's own registration overrides it field by field.
 */
export interface RegistrationSpec {
  /**
   * Name of the image in the cloud. Default: the name of the VMImage. Example: Ubuntu 24.04.
   */
  name?: string;
  /**
   * Who may see and use the image in the cloud: its own project, the projects in members, everybody who asks for community images, or everybody. A site may allow less, see ImageSite.spec.limits. Default: Private.
   */
  visibility: 'Private' | 'Shared' | 'Community' | 'Public';
  /**
   * Ids of projects or accounts that the image is shared with. Only with visibility Shared. At most 64. Example: [4f0a2f9b9f5e4d6c8a3b].
   */
  members?: string[];
  /**
   * Whether the cloud refuses to delete the image. ImageProxy itself lifts that when it deletes by policy. Default: false.
   */
  protected: boolean;
  /**
   * Whether the cloud leaves the image out of its lists; it still boots by id. Default: false.
   */
  hidden: boolean;
  /**
   * Tags of the image in the cloud. At most 64. Example: [ubuntu, lts].
   */
  tags?: string[];
  /**
   * Free properties of the image, as the cloud names them. At most 128. Keys are up to 255 characters long; names of the cloud's own attributes and of ImageProxy's are refused. A site's properties are merged into these, key by key. Example: {hw_disk_bus: virtio, hw_qemu_guest_agent: "yes"}.
   */
  properties?: {
    [k: string]: string;
  };
  /**
   * Processor architecture, as the cloud names it. Example: x86_64.
   */
  architecture?: string;
  /**
   * The operating system in the image.
   */
  os?: OperatingSystem;
  /**
   * Smallest disk that a machine needs to boot the image, in GiB. Default: what the cloud says. Example: 10.
   */
  minDiskGiB?: number;
  /**
   * Least memory that a machine needs to boot the image, in MiB. Default: what the cloud says. Example: 512.
   */
  minRamMiB?: number;
  /**
   * What boots the image. Default: what the cloud says.
   */
  firmware?: 'Bios' | 'Uefi';
}
/**
 * The operating system in the image.
 */
export interface OperatingSystem {
  /**
   * Kind of operating system. Example: linux.
   */
  type?: string;
  /**
   * Distribution, as libosinfo names it. Example: ubuntu.
   */
  distro?: string;
  /**
   * Version of the distribution. Quote it: 24.10 without quotes is the number 24.1. Example: "24.04".
   */
  version?: string;
}
export interface SiteTarget {
  /**
   * Name of an ImageSite. Example: nova-east.
   */
  name: string;
  /**
   * Whether the VMImage is Ready without this site. Default: false.
   */
  optional: boolean;
  /**
   * What is registered otherwise at this site. Properties are merged key by key; every other field that is given replaces the image's.
   */
  registration?: RegistrationOverrides;
}
/**
 * What is registered otherwise at this site. Properties are merged key by key; every other field that is given replaces the image's.
 */
export interface RegistrationOverrides {
  /**
   * Name of the image in the cloud. Default: the name of the VMImage. Example: Ubuntu 24.04.
   */
  name?: string;
  /**
   * Who may see and use the image in the cloud: its own project, the projects in members, everybody who asks for community images, or everybody. Default: as spec.registration says.
   */
  visibility?: 'Private' | 'Shared' | 'Community' | 'Public';
  /**
   * Ids of projects or accounts that the image is shared with. Only with visibility Shared. At most 64. Example: [4f0a2f9b9f5e4d6c8a3b].
   */
  members?: string[];
  /**
   * Whether the cloud refuses to delete the image. Default: as spec.registration says.
   */
  protected?: boolean;
  /**
   * Whether the cloud leaves the image out of its lists. Default: as spec.registration says.
   */
  hidden?: boolean;
  /**
   * Tags of the image in the cloud. At most 64. Example: [ubuntu, lts].
   */
  tags?: string[];
  /**
   * Free properties of the image, as the cloud names them. At most 128. Keys are up to 255 characters long; names of the cloud's own attributes and of ImageProxy's are refused. A site's properties are merged into these, key by key. Example: {hw_disk_bus: virtio, hw_qemu_guest_agent: "yes"}.
   */
  properties?: {
    [k: string]: string;
  };
  /**
   * Processor architecture, as the cloud names it. Example: x86_64.
   */
  architecture?: string;
  /**
   * The operating system in the image.
   */
  os?: OperatingSystem;
  /**
   * Smallest disk that a machine needs to boot the image, in GiB. Default: what the cloud says. Example: 10.
   */
  minDiskGiB?: number;
  /**
   * Least memory that a machine needs to boot the image, in MiB. Default: what the cloud says. Example: 512.
   */
  minRamMiB?: number;
  /**
   * What boots the image. Default: what the cloud says.
   */
  firmware?: 'Bios' | 'Uefi';
}
/**
 * Labels of the ImageSites that get the image; {} means every site that admits the namespace. A site that is no longer matched keeps its row and its image until a person confirms that it may go (imageproxy confirm-removal). Exactly one of sites and siteSelector.
 */
export interface LabelSelector {
  /**
   * Labels and their values; all must be there. At most 32. Example: {region: eu}.
   */
  matchLabels?: {
    [k: string]: string;
  };
  /**
   * Further requirements; all must hold. At most 32.
   */
  matchExpressions?: LabelRequirement[];
}
export interface LabelRequirement {
  /**
   * Name of a label. Example: topology.kubernetes.io/region.
   */
  key: string;
  /**
   * How the label is compared with the values.
   */
  operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist';
  /**
   * Values for In and NotIn. At most 64.
   */
  values?: string[];
}
/**
 * What is. Written by the controllers alone; phases and reasons are open lists.
 */
export interface VMImageStatus {
  /**
   * The metadata.generation that this status speaks of; -1: not yet looked at.
   */
  observedGeneration?: number;
  /**
   * The guid in effect, spec.guid or the one made for it.
   */
  guid?: string;
  /**
   * Where the work stands, in one word for people: Pending, Fetching, Verifying, Preparing, Registering, Ready, Expired, Deactivated, Deleting, Suspended, Failed, … Programs read the conditions.
   */
  phase?: string;
  /**
   * Ready (every site that is not optional serves this generation), Available (every such site serves some verified image), Reconciling, Stalled, Fetched, Verified, Registered, …
   *
   * Items: One aspect of the object's state.
   */
  conditions?: Condition[];
  /**
   * The proven parts of the image, as they were fetched.
   *
   * Items: One proven part of the image, as it was fetched.
   */
  artifacts?: Artifact[];
  /**
   * The failure of fetching or proving that is in the way now; absent while there is none.
   */
  failure?: FailureStatus;
  /**
   * What is being done now, as far as it is measured.
   */
  progress?: ProgressStatus;
  /**
   * What the printer columns show.
   */
  summary?: SummaryStatus;
  /**
   * Value of the annotation imageproxy.dev/requestedAt that was last acted upon.
   */
  lastHandledReconcileAt?: string;
  /**
   * One row for each site that has, had or will have the image. At most 256.
   *
   * Items: What is at one site. A row is complete in itself, and written by the controller that serves the site.
   */
  sites?: SiteRow[];
}
/**
 * One aspect of the object's state.
 */
export interface Condition {
  /**
   * Name of the aspect, CamelCase.
   */
  type: string;
  /**
   * Whether it holds: True, False or Unknown.
   */
  status: 'True' | 'False' | 'Unknown';
  /**
   * The metadata.generation that the condition speaks of.
   */
  observedGeneration?: number;
  /**
   * When status last changed, RFC 3339.
   */
  lastTransitionTime: string;
  /**
   * Why, in one CamelCase word for programs.
   */
  reason: string;
  /**
   * Why, for people: what, where, and what can be done.
   */
  message: string;
}
/**
 * One proven part of the image, as it was fetched.
 */
export interface Artifact {
  /**
   * What the part is for: Disk, Kernel or Ramdisk.
   */
  role: string;
  /**
   * Digest of the bytes, algorithm:hex. Example: sha256:9f86d081….
   */
  digest?: string;
  /**
   * Digest of the bytes after decompression, algorithm:hex; absent where nothing was decompressed.
   */
  contentDigest?: string;
  /**
   * Size in bytes.
   */
  size?: number;
  /**
   * Format of the disk: Raw, Qcow2, …
   */
  format?: string;
  /**
   * Size of the disk that a machine sees, in bytes.
   */
  virtualSize?: number;
  /**
   * Where the bytes came from, without credentials and query.
   */
  source?: string;
  /**
   * When that was, RFC 3339.
   */
  fetchedAt?: string;
  /**
   * Hash of the source that it was fetched from; tells whether an image without checksums is still the one that is asked for.
   */
  inputsHash?: string;
}
/**
 * The failure of fetching or proving that is in the way now; absent while there is none.
 */
export interface FailureStatus {
  /**
   * What happens next is decided by it: InvalidSpec, VerificationFailed, UnsafeImage, Unauthorized, Transient or Waiting.
   */
  class?: string;
  /**
   * Why, in one CamelCase word for programs.
   */
  reason: string;
  /**
   * Why, for people: what, where, and what can be done.
   */
  message?: string;
  /**
   * How often it has failed in a row.
   */
  attempts?: number;
  /**
   * When it is tried again, RFC 3339; absent when only a change helps. What waits for a named thing (space, a tool) looks for it every few minutes from then on.
   */
  nextAttemptTime?: string;
  /**
   * Hash of the inputs that failed; another one ends the waiting.
   */
  inputsHash?: string;
  /**
   * What each mirror said of the bytes that it sent (ETag, date, size), as a hash by a hash of its name. After wrong bytes they are asked every 6 hours, and another answer of one of them ends the waiting.
   */
  sourceHashes?: {
    [k: string]: string;
  };
}
/**
 * What is being done now, as far as it is measured.
 */
export interface ProgressStatus {
  /**
   * The step: Fetching, Verifying, Decompressing, Converting, Uploading, …
   */
  step?: string;
  /**
   * Bytes done.
   */
  bytes?: number;
  /**
   * Bytes in all, where that is known.
   */
  totalBytes?: number;
  /**
   * Done, in percent, where the total is known.
   */
  percent?: number;
  /**
   * Speed over the last seconds, in bytes per second.
   */
  bytesPerSecond?: number;
}
/**
 * What the printer columns show.
 */
export interface SummaryStatus {
  /**
   * The image id where all sites have the same or there is one site, else the first and how many more.
   */
  imageID?: string;
  /**
   * Sites that serve this generation, of all. Example: 2/3.
   */
  sites?: string;
  /**
   * Progress of the slowest. Example: 45%.
   */
  progress?: string;
}
/**
 * What is at one site. A row is complete in itself, and written by the controller that serves the site.
 */
export interface SiteRow {
  /**
   * Name of the ImageSite.
   */
  name: string;
  /**
   * Identity of the site (ImageSite.status.identity) when the row's ids were made.
   */
  siteIdentity?: string;
  /**
   * Since when the image is kept here though it is not asked for here any more, not admitted, or the site is another place, RFC 3339. The annotation imageproxy.dev/confirm-removal lets go of it by <site>@<heldSince>, and of nothing that is held here later.
   */
  heldSince?: string;
  /**
   * True where imageproxy.dev/confirm-removal named the site alone already when heldSince began: that word was given for something earlier, and counts again once it has been taken away.
   */
  heldDespiteWord?: boolean;
  /**
   * The metadata.generation that this status speaks of; -1: not yet looked at.
   */
  observedGeneration?: number;
  /**
   * Where the work stands, in one word for people: Pending, Fetching, Verifying, Preparing, Registering, Ready, Expired, Deactivated, Deleting, Suspended, Failed, … Programs read the conditions.
   */
  phase?: string;
  /**
   * Why, in one CamelCase word for programs.
   */
  reason?: string;
  /**
   * Why, for people: what, where, and what can be done.
   */
  message?: string;
  /**
   * What is being done now, as far as it is measured.
   */
  progress?: ProgressStatus;
  /**
   * The site's own id of the image that is in service.
   */
  imageID?: string;
  /**
   * The site's own id of the kernel that belongs to it.
   */
  kernelID?: string;
  /**
   * The site's own id of the ramdisk that belongs to it.
   */
  ramdiskID?: string;
  /**
   * Digest, as published, of the disk that imageID holds, algorithm:hex.
   */
  digest?: string;
  /**
   * When imageID went into service, RFC 3339.
   */
  registeredAt?: string;
  /**
   * When the cloud was last looked at for this image, RFC 3339. A look that finds nothing new is written about every 12 hours.
   */
  lastCheckedTime?: string;
  /**
   * Where several controllers share the API server: value of the annotation imageproxy.dev/requestedAt that this site's was last done with.
   */
  lastHandledReconcileAt?: string;
  /**
   * The registered parts, imageID among them.
   *
   * Items: One part of the image as a site has it.
   */
  artifacts?: RegisteredArtifact[];
  /**
   * The change in the cloud that is under way; written before the first request that creates anything.
   */
  operation?: SiteOperation;
  /**
   * How often it has failed in a row.
   */
  attempts?: number;
  /**
   * When it is tried again, RFC 3339; absent when only a change helps. What waits for a named thing (space, a tool) looks for it every few minutes from then on.
   */
  nextAttemptTime?: string;
  /**
   * Hash of the inputs that failed; another one ends the waiting.
   */
  inputsHash?: string;
  /**
   * Hash of the registration (name, visibility, properties, …) that the cloud was last given.
   */
  registrationHash?: string;
  /**
   * When the image was found gone and made again, RFC 3339; at most three a day are repaired.
   */
  losses?: string[];
  /**
   * When the image was first not found in the cloud; it counts as gone when a second look agrees.
   */
  missingSince?: string;
  /**
   * What the last look found amiss with the image in service here (Tampered or Held), until another finds it well: also while other bytes are on their way and the row tells of them.
   */
  lookFound?: string;
  /**
   * Whether the image is out of service here because spec.state or its expiry asks for it.
   */
  retired?: boolean;
  /**
   * Replaced registrations that are kept, deactivated and hidden, the youngest first.
   *
   * Items: A replaced registration that a site still has.
   */
  previous?: PreviousRegistration[];
}
/**
 * One part of the image as a site has it.
 */
export interface RegisteredArtifact {
  /**
   * What the part is for: Disk, Kernel or Ramdisk.
   */
  role: string;
  /**
   * The site's own id of the image that is in service.
   */
  id: string;
  /**
   * Digest of the bytes, algorithm:hex. Example: sha256:9f86d081….
   */
  digest?: string;
  /**
   * Digest of the bytes that were sent (after decompression and conversion), algorithm:hex.
   */
  sentDigest?: string;
  /**
   * The cloud's own hash of the part, algorithm:hex, compared with ours before the part went into service; what a reactivation is compared with.
   */
  cloudDigest?: string;
  /**
   * Format of the disk: Raw, Qcow2, …
   */
  format?: string;
  /**
   * Size in bytes.
   */
  size?: number;
}
/**
 * The change in the cloud that is under way; written before the first request that creates anything.
 */
export interface SiteOperation {
  /**
   * What is done: Register, Replace, Reactivate, Update, Retire, Delete, …
   */
  kind: string;
  /**
   * Id or token that was derived for it.
   */
  id?: string;
  /**
   * Digest of the bytes, algorithm:hex. Example: sha256:9f86d081….
   */
  digest?: string;
  /**
   * Counts the ids tried; part of what the id is derived from.
   */
  attempt?: number;
  /**
   * When that was, RFC 3339.
   */
  startedAt?: string;
  /**
   * Why, for people: what, where, and what can be done.
   */
  message?: string;
}
/**
 * A replaced registration that a site still has.
 */
export interface PreviousRegistration {
  /**
   * The site's own id of the image that is in service.
   */
  imageID: string;
  /**
   * Digest of the bytes, algorithm:hex. Example: sha256:9f86d081….
   */
  digest?: string;
  /**
   * When that was, RFC 3339.
   */
  retiredAt?: string;
  /**
   * The registered parts, imageID among them.
   *
   * Items: One part of the image as a site has it.
   */
  artifacts?: RegisteredArtifact[];
}
/**
 * What is wanted.
 */
export interface ImageSiteSpec {
  /**
   * A directory of the controller's machine, for libvirt, a web server or another program to use.
   */
  directory?: DirectorySite;
  /**
   * The Glance of an OpenStack project in one region.
   */
  openstack?: OpenStackSite;
  /**
   * The AMIs of one account in one region of Amazon EC2 or of a cloud with its API.
   */
  ec2?: Ec2Site;
  /**
   * One image datastore of an OpenNebula.
   */
  opennebula?: OpenNebulaSite;
  /**
   * A program of the site's own that registers images, configured with the controller by --handler NAME=PATH.
   */
  handler?: HandlerSite;
  /**
   * Disk formats that the site takes, in order of preference; an image in another one is converted to the first. Default: what the cloud itself takes. Example: [Qcow2, Raw].
   */
  acceptedFormats?: ('Raw' | 'Qcow2' | 'Vmdk' | 'Vdi' | 'Vhd' | 'Vhdx' | 'Ova' | 'Iso')[];
  /**
   * Namespaces whose VMImages may name the site: names, or globs with * and ?. At most 256. What is in the cloud stays when a namespace is removed here. Default: all. Example: [team-a, physics-*].
   */
  allowedNamespaces: string[];
  /**
   * What VMImages may leave unproven at this site. What is false here is refused, whatever a VMImage says.
   */
  verification: SiteVerificationPolicy;
  /**
   * How many images are sent to the site at a time, 1 to 64. Default: 2.
   */
  maxParallelUploads: number;
  /**
   * Largest image that the site takes, published, unpacked or converted: bytes, or with Ki, Mi, Gi or Ti. Default: no limit of the site's own. Example: 100Gi.
   */
  maxImageSize?: string;
  /**
   * What registrations of VMImages may ask of this site. What is absent is not limited.
   */
  limits?: SiteLimits;
  /**
   * How the cloud is looked at again after an image is in service.
   */
  drift: DriftPolicy;
  /**
   * Whether the cloud is gone for good: VMImages then let go of it without cleaning up there, and the ImageSite can be deleted. Default: false.
   */
  abandoned: boolean;
  /**
   * Whether ImageProxy leaves the site alone: nothing is probed, sent, repaired or deleted there until it is false again. Default: false.
   */
  suspend: boolean;
}
/**
 * A directory of the controller's machine, for libvirt, a web server or another program to use.
 */
export interface DirectorySite {
  /**
   * Absolute path of the directory. Example: /var/lib/libvirt/images.
   */
  path: string;
}
/**
 * The Glance of an OpenStack project in one region.
 */
export interface OpenStackSite {
  /**
   * The Secret with the credentials. For openstack its key clouds.yaml holds the usual file (password or application credential); for ec2 the keys accessKeyId, secretAccessKey and sessionToken; for opennebula username and password.
   */
  secretRef: SiteSecretReference;
  /**
   * Certificates (PEM) that are trusted for this endpoint, instead of the public authorities. In the controller's own namespace.
   */
  caRef?: CaReference;
  /**
   * Name of the cloud in clouds.yaml. Immutable. Default: openstack.
   */
  cloud: string;
  /**
   * Region, as the service catalogue names it. Immutable, also its absence. Default: the one that clouds.yaml names, or the only one. Example: RegionOne.
   */
  region?: string;
  /**
   * Which endpoint of the service catalogue is used. Default: Public.
   */
  interface: 'Public' | 'Internal' | 'Admin';
}
/**
 * The Secret with the credentials. For openstack its key clouds.yaml holds the usual file (password or application credential); for ec2 the keys accessKeyId, secretAccessKey and sessionToken; for opennebula username and password.
 */
export interface SiteSecretReference {
  /**
   * Name of the object. Example: nova-east.
   */
  name: string;
  /**
   * Namespace of the object. Only the controller's own is allowed, and it is the default (in a directory: imageproxy).
   */
  namespace?: string;
}
/**
 * The AMIs of one account in one region of Amazon EC2 or of a cloud with its API.
 */
export interface Ec2Site {
  /**
   * Region. Immutable. Example: eu-central-1.
   */
  region: string;
  /**
   * Address of the API. Default: Amazon's of the region.
   */
  endpoint?: string;
  /**
   * The Secret with the credentials. For openstack its key clouds.yaml holds the usual file (password or application credential); for ec2 the keys accessKeyId, secretAccessKey and sessionToken; for opennebula username and password.
   */
  secretRef: SiteSecretReference;
  /**
   * Certificates (PEM) that are trusted for this endpoint, instead of the public authorities. In the controller's own namespace.
   */
  caRef?: CaReference;
}
/**
 * One image datastore of an OpenNebula.
 */
export interface OpenNebulaSite {
  /**
   * Address of the XML-RPC API. Example: https://one.example.org:2633/RPC2.
   */
  endpoint: string;
  /**
   * Name or number of the image datastore. Immutable. Example: default.
   */
  datastore: string;
  /**
   * The Secret with the credentials. For openstack its key clouds.yaml holds the usual file (password or application credential); for ec2 the keys accessKeyId, secretAccessKey and sessionToken; for opennebula username and password.
   */
  secretRef: SiteSecretReference;
  /**
   * Certificates (PEM) that are trusted for this endpoint, instead of the public authorities. In the controller's own namespace.
   */
  caRef?: CaReference;
}
/**
 * A program of the site's own that registers images, configured with the controller by --handler NAME=PATH.
 */
export interface HandlerSite {
  /**
   * Name of the handler in the controller's configuration. Immutable. Example: vsphere.
   */
  name: string;
  /**
   * What the handler is told, as it documents. At most 64. Example: {cluster: prod}.
   */
  parameters?: {
    [k: string]: string;
  };
  /**
   * The Secret with the credentials. For openstack its key clouds.yaml holds the usual file (password or application credential); for ec2 the keys accessKeyId, secretAccessKey and sessionToken; for opennebula username and password.
   */
  secretRef?: SiteSecretReference;
}
/**
 * What VMImages may leave unproven at this site. What is false here is refused, whatever a VMImage says.
 */
export interface SiteVerificationPolicy {
  /**
   * Whether sha1 or md5 alone will do for a VMImage that asks for it (verification.allowWeak). Default: true.
   */
  allowWeak: boolean;
  /**
   * Whether a VMImage may do without any checksum if it asks for that (verification.insecureSkipVerify). Default: true.
   */
  allowUnverified: boolean;
}
/**
 * What registrations of VMImages may ask of this site. What is absent is not limited.
 */
export interface SiteLimits {
  /**
   * Visibilities that are allowed. Example: [Private].
   */
  visibilities?: ('Private' | 'Shared' | 'Community' | 'Public')[];
  /**
   * Keys of properties that are allowed: names, or globs with *. At most 256. Example: [hw_*, os_type].
   */
  propertyKeys?: string[];
  /**
   * Ids of projects or accounts with which images may be shared. At most 256.
   */
  members?: string[];
}
/**
 * How the cloud is looked at again after an image is in service.
 */
export interface DriftPolicy {
  /**
   * Time between two looks, 1m to 720h, as a Go duration; each image has a moment of its own in it. Default: 30m.
   */
  interval: string;
  /**
   * Repair puts right what was changed behind ImageProxy's back and registers lost images again; Report only says so in the conditions. Default: Repair.
   */
  policy: 'Repair' | 'Report';
}
/**
 * What is. Written by the controllers alone; reasons are open lists.
 */
export interface ImageSiteStatus {
  /**
   * The metadata.generation that this status speaks of; -1: not yet looked at.
   */
  observedGeneration?: number;
  /**
   * Ready (every site that is not optional serves this generation), Available (every such site serves some verified image), Reconciling, Stalled, Fetched, Verified, Registered, …
   *
   * Items: One aspect of the object's state.
   */
  conditions?: Condition[];
  /**
   * Value of the annotation imageproxy.dev/requestedAt that was last acted upon.
   */
  lastHandledReconcileAt?: string;
  /**
   * The controller that serves the site, where several share a cluster (--site-selector): namespace and name of its Lease. Example: site-east/imageproxy.
   */
  controller?: string;
  /**
   * What the site is, in one line: endpoint, region, project or account. Recorded by the first good probe; if a later one differs, the site is Stalled with reason IdentityChanged and nothing is done there.
   */
  identity?: string;
  /**
   * What the last good probe found.
   */
  cloud?: {
    /**
     * Kind of cloud. Example: openstack.
     */
    name?: string;
    /**
     * Version of its image service. Example: v2.15.
     */
    version?: string;
    /**
     * What people call it. Example: {project: demo, region: RegionOne}.
     */
    details?: {
      [k: string]: string;
    };
    /**
     * URLs of its own API. No source of an image may reach their hosts and ports, whatever the controller's --allow-network admits.
     */
    endpoints?: string[];
  };
  /**
   * When endpoint and credentials were last tried, RFC 3339. A probe that finds nothing new is written about every 12 hours.
   */
  lastProbeTime?: string;
  /**
   * How many probes have failed in a row, counted until the pauses grow no longer; absent where a named thing (a Secret) is waited for.
   */
  attempts?: number;
  /**
   * When it is probed again, RFC 3339; absent where that is every few minutes for as long as nothing changes (the site is ready, or has failed for long, or a named thing is waited for).
   */
  nextAttemptTime?: string;
  /**
   * The VMImages of this site.
   */
  counts?: {
    /**
     * VMImages that want this site.
     */
    images?: number;
    /**
     * Those that serve here in their current generation.
     */
    registered?: number;
    /**
     * Those that failed here.
     */
    failed?: number;
  };
}
/**
 * What is wanted.
 */
export interface ImageSubscriptionSpec {
  /**
   * Where the list is: http or https; oci:// for format OCI. Example: https://vmcaster.example.org/image.list.
   */
  url: string;
  /**
   * What the list is: HEPiX (S/MIME signed image lists of VMCaster and EGI AppDB), Marketplace (StratusLab's XML), Simplestreams, ChecksumFile (SHA256SUMS beside the images), OCI (tags of a repository) or ImageProxy (a list of its own).
   */
  format: 'HEPiX' | 'Marketplace' | 'Simplestreams' | 'ChecksumFile' | 'OCI' | 'ImageProxy';
  /**
   * Time between two looks at the list, 1m to 720h, as a Go duration; jittered. Default: 1h.
   */
  interval: string;
  /**
   * A Secret of the same namespace with the credentials. Keys: username and password, or token (sent as Bearer), or headers (one `Name: value` a line); tls.crt and tls.key for a client certificate. Its annotation imageproxy.dev/hosts says to which hosts it may be sent; without it the Secret is refused.
   */
  secretRef?: SecretReference;
  /**
   * Certificates (PEM) that are trusted for this server, beside the public authorities. In the same namespace.
   */
  caRef?: CaReference;
  /**
   * Whose word is taken for the list. Exactly one of the members; a list without a signature needs unsigned: {}.
   */
  trust: SubscriptionTrust;
  /**
   * Which entries are taken: those that matchFields or expression choose (else all), of these only what include names (if it is given), and never what exclude names. Default: all.
   */
  select?: EntrySelector;
  /**
   * Whether an entry becomes a VMImage at once (Automatic), or waits until approved names it (Manual). Default: Automatic.
   */
  approval: 'Automatic' | 'Manual';
  /**
   * Entries that may become VMImages, for approval Manual; imageproxy approve edits it. At most 1000.
   */
  approved?: ApprovedEntry[];
  /**
   * What the VMImages are made with. Source, checksums and guid come from the list alone.
   */
  template: VMImageTemplate;
  /**
   * What is done with a list that is older than the accepted one, or that calls itself otherwise: Refuse it, or Accept it, for a publisher who has numbered his list anew. Default: Refuse.
   */
  rollback: 'Refuse' | 'Accept';
  /**
   * What happens to the VMImage of an entry that is no longer in the list, is deprecated there, or is no longer chosen by select: Deactivate keeps it out of service, Delete deletes it, Retain leaves it as it is. Default: Deactivate.
   */
  onRemoved: 'Deactivate' | 'Delete' | 'Retain';
  /**
   * The same when the entry's own date is past. Default: Deactivate.
   */
  onExpired: 'Deactivate' | 'Delete' | 'Retain';
  /**
   * The same when its endorser is removed from trust or revoked. Default: Deactivate.
   */
  onUntrusted: 'Deactivate' | 'Delete' | 'Retain';
  /**
   * What happens to the VMImages when the subscription is deleted, in whichever way (--cascade): Retain leaves them, in service as they are; Delete deletes them. Default: Retain.
   */
  deletionPolicy: 'Retain' | 'Delete';
  /**
   * Whether the list is not looked at until this is false again. Default: false.
   */
  suspend: boolean;
}
/**
 * Whose word is taken for the list. Exactly one of the members; a list without a signature needs unsigned: {}.
 */
export interface SubscriptionTrust {
  /**
   * The list is signed with an X.509 certificate (S/MIME or XML signature).
   */
  x509?: X509Trust;
  /**
   * The list has an OpenPGP signature, in it or beside it.
   */
  openpgp?: OpenPgpTrust;
  /**
   * The list has a minisign signature beside it.
   */
  minisign?: MinisignTrust;
  /**
   * Nobody vouches for the list: whoever controls its server controls the images. Give {}.
   */
  unsigned?: {};
}
/**
 * The list is signed with an X.509 certificate (S/MIME or XML signature).
 */
export interface X509Trust {
  /**
   * Who may sign the list. At most 32.
   */
  endorsers: {
    /**
     * Distinguished name of the endorser. Example: /DC=ch/DC=cern/OU=Users/CN=alice.
     */
    subject: string;
    /**
     * Distinguished name of the authority that issued the certificate. Example: /DC=ch/DC=cern/CN=CERN Grid CA.
     */
    issuer: string;
  }[];
  /**
   * Certificates (PEM) of the authorities up to which the endorser's chain must lead, and their CRLs. In the same namespace. Exactly one of caRef and directoryRef.
   */
  caRef?: CaReference;
  /**
   * A ConfigMap or Secret whose keys are the files of a directory of trust anchors, as IGTF distributes them and fetch-crl completes them: *.0 and *.pem (certificates), *.r0 (CRLs), *.signing_policy and *.namespaces (what an authority may sign). In the same namespace. Exactly one of caRef and directoryRef.
   */
  directoryRef?: {
    /**
     * What holds the files, ConfigMap or Secret.
     */
    kind: 'ConfigMap' | 'Secret';
    /**
     * Name of the object. Example: mirror-credentials.
     */
    name: string;
  };
  /**
   * Whether revocation lists are needed: Require refuses a chain for which one is missing or expired, IfPresent uses those that there are, Ignore uses none. Default: IfPresent.
   */
  crl: 'Require' | 'IfPresent' | 'Ignore';
  /**
   * Whether an authority may only sign what its .signing_policy or .namespaces file says: Require refuses a chain with an authority that has none, IfPresent goes by those that there are, Ignore by none. Default: IfPresent.
   */
  signingPolicy: 'Require' | 'IfPresent' | 'Ignore';
  /**
   * Whether a signature over SHA-1 counts. It can be forged by who spends enough on it; lists from before 2016 have no other. Default: false.
   */
  allowSha1: boolean;
}
/**
 * The list has an OpenPGP signature, in it or beside it.
 */
export interface OpenPgpTrust {
  /**
   * The public keys that may sign the list, armored. In the same namespace.
   */
  keyringRef: {
    /**
     * What holds the keys, ConfigMap or Secret.
     */
    kind: 'ConfigMap' | 'Secret';
    /**
     * Name of the object. Example: mirror-credentials.
     */
    name: string;
    /**
     * Key within it. Default: keyring.asc.
     */
    key: string;
  };
  /**
   * Whether a signature over SHA-1 counts. It can be forged by who spends enough on it; lists from before 2016 have no other. Default: false.
   */
  allowSha1: boolean;
}
/**
 * The list has a minisign signature beside it.
 */
export interface MinisignTrust {
  /**
   * Public keys that may sign the list, base64. At most 16.
   */
  publicKeys: string[];
}
/**
 * Which entries are taken: those that matchFields or expression choose (else all), of these only what include names (if it is given), and never what exclude names. Default: all.
 */
export interface EntrySelector {
  /**
   * The white list: only entries that it names, by any of its members, are taken. Default: all.
   */
  include?: {
    /**
     * Ids of entries, or globs with * and ?. At most 1000.
     */
    ids?: string[];
    /**
     * Who vouches for the entry, as status and describe show it (for X.509 the subject), or globs. At most 100.
     */
    endorsers?: string[];
    /**
     * Checksums that the list gives, in hex without the name of the algorithm. At most 1000.
     */
    checksums?: string[];
  };
  /**
   * The black list: entries that it names, by any of its members, are not taken, whatever else chooses them.
   */
  exclude?: {
    /**
     * Ids of entries, or globs with * and ?. At most 1000.
     */
    ids?: string[];
    /**
     * Who vouches for the entry, as status and describe show it (for X.509 the subject), or globs. At most 100.
     */
    endorsers?: string[];
    /**
     * Checksums that the list gives, in hex without the name of the algorithm. At most 1000.
     */
    checksums?: string[];
  };
  /**
   * Requirements on fields of the entry; all must hold. At most 32.
   */
  matchFields?: FieldRequirement[];
  /**
   * A CEL expression over entry that says whether it is taken. Example: entry.arch == "x86_64" && entry.os.distro == "ubuntu".
   */
  expression?: string;
}
export interface FieldRequirement {
  /**
   * Name of a field of the entry. Example: os.version.
   */
  key: string;
  /**
   * How the field is compared with the values.
   */
  operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist';
  /**
   * Values for In and NotIn, or globs with * and ?. At most 64.
   */
  values?: string[];
}
export interface ApprovedEntry {
  /**
   * Id of the entry in the list.
   */
  id: string;
  /**
   * Digest that was approved, algorithm:hex; with it each new digest of the entry needs approval again. Default: any.
   */
  digest?: string;
}
/**
 * What the VMImages are made with. Source, checksums and guid come from the list alone.
 */
export interface VMImageTemplate {
  /**
   * Labels and annotations of the VMImages.
   */
  metadata?: {
    /**
     * Labels. At most 32.
     */
    labels?: {
      [k: string]: string;
    };
    /**
     * Annotations. At most 32.
     */
    annotations?: {
      [k: string]: string;
    };
  };
  /**
   * The part of the VMImages' spec that is the subscriber's to say.
   */
  spec: VMImageTemplateSpec;
}
/**
 * The part of the VMImages' spec that is the subscriber's to say.
 */
export interface VMImageTemplateSpec {
  /**
   * The sites that get the images, by the names of their ImageSites. At most 64; may be empty. Exactly one of sites and siteSelector.
   */
  sites?: SiteTarget[];
  /**
   * Labels of the ImageSites that get the image; {} means every site that admits the namespace. A site that is no longer matched keeps its row and its image until a person confirms that it may go (imageproxy confirm-removal). Exactly one of sites and siteSelector.
   */
  siteSelector?: LabelSelector;
  /**
   * How the images are registered at every site. In name, {id}, {title}, {version} and {digest12} stand for the entry's own.
   */
  registration?: RegistrationOverrides;
  /**
   * See VMImage.spec.deletionPolicy. Default: Delete.
   */
  deletionPolicy: 'Delete' | 'Retain';
  /**
   * See VMImage.spec.history. Default: 1.
   */
  history: number;
  /**
   * See VMImage.spec.onExpiry. Default: Deactivate.
   */
  onExpiry: 'Deactivate' | 'Delete' | 'Retain';
  /**
   * What may be left unproven of the images.
   */
  verification: {
    /**
     * See VMImage.spec.verification.allowWeak: whether sha1 or md5 is enough where the list gives no better checksum. Default: false.
     */
    allowWeak: boolean;
  };
}
/**
 * What is. Written by the controllers alone; reasons are open lists.
 */
export interface ImageSubscriptionStatus {
  /**
   * The metadata.generation that this status speaks of; -1: not yet looked at.
   */
  observedGeneration?: number;
  /**
   * Ready (the list could be read, is valid, and its chosen entries are VMImages), ImagesReady (these are Ready), Fetched, Verified, Reconciling, Stalled, …
   *
   * Items: One aspect of the object's state.
   */
  conditions?: Condition[];
  /**
   * Value of the annotation imageproxy.dev/requestedAt that was last acted upon.
   */
  lastHandledReconcileAt?: string;
  /**
   * The list that was last accepted.
   */
  list?: {
    /**
     * What the list calls itself, its dc:identifier for instance.
     */
    identity?: string;
    /**
     * Title of the list.
     */
    title?: string;
    /**
     * Version of the list.
     */
    version?: string;
    /**
     * Digest of the list's bytes, algorithm:hex.
     */
    digest?: string;
    /**
     * When it was made, RFC 3339.
     */
    createdAt?: string;
    /**
     * When it expires, RFC 3339.
     */
    expiresAt?: string;
    /**
     * Who signed it.
     */
    endorser?: string;
    /**
     * Hex fingerprint of the certificate or key that signed it.
     */
    fingerprint?: string;
    /**
     * Where it was read, without credentials.
     */
    url?: string;
    /**
     * What it was read as.
     */
    format?: string;
    /**
     * When it was accepted, RFC 3339.
     */
    acceptedTime?: string;
    /**
     * What a person should know of it although it is valid. At most 8.
     */
    warnings?: string[];
  };
  /**
   * The entries of the list.
   */
  counts?: {
    /**
     * Entries in the list.
     */
    entries?: number;
    /**
     * Entries that could not be taken, for something is wrong with them.
     */
    skipped?: number;
    /**
     * Those that select takes.
     */
    selected?: number;
    /**
     * Those that wait for approval.
     */
    pendingApproval?: number;
    /**
     * VMImages that there are.
     */
    images?: number;
    /**
     * Those of them whose entry is removed, expired or no longer trusted.
     */
    retired?: number;
    /**
     * VMImages that are Ready.
     */
    ready?: number;
    /**
     * VMImages that are Stalled.
     */
    failed?: number;
  };
  /**
   * When the list was last fetched or found unchanged, RFC 3339.
   */
  lastCheckedTime?: string;
  /**
   * How often looking at the list has failed in a row.
   */
  attempts?: number;
  /**
   * When it is looked at again, RFC 3339.
   */
  nextAttemptTime?: string;
  /**
   * Entries that need a person's attention. At most 100; the truth of each entry is its VMImage.
   *
   * Items: An entry that needs a person's attention.
   */
  attention?: EntryAttention[];
}
/**
 * An entry that needs a person's attention.
 */
export interface EntryAttention {
  /**
   * Id of the entry in the list.
   */
  id: string;
  /**
   * Title of the entry.
   */
  title?: string;
  /**
   * Name of its VMImage.
   */
  image?: string;
  /**
   * Digest that the list gives, algorithm:hex.
   */
  digest?: string;
  /**
   * Why, in one CamelCase word for programs.
   */
  reason?: string;
  /**
   * Why, for people: what, where, and what can be done.
   */
  message?: string;
}
