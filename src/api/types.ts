import type { ConfigMap, Resource, Secret } from '../stores/store.ts';
import type {
  ImageSiteSpec,
  ImageSiteStatus,
  ImageSubscriptionSpec,
  ImageSubscriptionStatus,
  VMImageSpec,
  VMImageStatus,
} from './generated.ts';

export type * from './generated.ts';

/**
 * The kinds as the stores give them: validated and defaulted, so every field that has a default is there, `status` (with
 * `observedGeneration: -1` until a controller has looked) among them. What people write is a `Draft` of the store; the schema
 * judges it.
 */
export interface VMImage extends Resource {
  kind: 'VMImage';
  spec: VMImageSpec;
  status: VMImageStatus;
}

export interface ImageSite extends Resource {
  kind: 'ImageSite';
  spec: ImageSiteSpec;
  status: ImageSiteStatus;
}

export interface ImageSubscription extends Resource {
  kind: 'ImageSubscription';
  spec: ImageSubscriptionSpec;
  status: ImageSubscriptionStatus;
}

export type ApiObject = VMImage | ImageSite | ImageSubscription;
export type AnyObject = ApiObject | Secret | ConfigMap;

export const GROUP = 'imageproxy.dev';
export const VERSION = 'v1beta1';
export const API_VERSION = `${GROUP}/${VERSION}`;

export const FINALIZERS = {
  /** On a VMImage, until no row holds an id or an operation. */
  registrations: 'imageproxy.dev/registrations',
  /** On an ImageSite, until no row of any VMImage names it, or it is abandoned. */
  siteInUse: 'imageproxy.dev/site-in-use',
  /** On an ImageSubscription, until its VMImages are deleted or let go of. */
  subscribedImages: 'imageproxy.dev/subscribed-images',
} as const;

export const ANNOTATIONS = {
  /** On any kind: a new value clears every back-off and looks again; any string, a time by custom. */
  requestedAt: 'imageproxy.dev/requestedAt',
  /** Flux's spelling of the same. */
  fluxRequestedAt: 'reconcile.fluxcd.io/requestedAt',
  /** On a VMImage: `<site>`, or `<site>@<heldSince of its row>` (comma-separated): what is held at these sites may be let go of. */
  confirmRemoval: 'imageproxy.dev/confirm-removal',
  /** On an ImageSite: the person has seen that many images are gone at once (`MassLoss`), and wants them registered again. */
  confirmLoss: 'imageproxy.dev/confirm-loss',
  /** On an ImageSite: the new identity, when the person has seen that it changed (`IdentityChanged`) and it is right so. */
  confirmIdentity: 'imageproxy.dev/confirm-identity',
  /** On a source's Secret: hosts (comma-separated, `*.example.org` for subdomains) to which it may be sent. */
  hosts: 'imageproxy.dev/hosts',
  /** On an ImageSubscription: the person has seen that many entries are gone from an unsigned list; the list's digest. */
  confirmListRemoval: 'imageproxy.dev/confirm-removal',
  /** On a VMImage made by a subscription: name of the subscription. One of this name takes it up again when the first has gone. */
  subscription: 'imageproxy.dev/subscription',
  /** On a VMImage that a subscription looks after: its uid. It goes when the subscription is deleted and keeps its images. */
  subscriptionUid: 'imageproxy.dev/subscription-uid',
  /** On a VMImage made by a subscription: the entry's id in the list. */
  entry: 'imageproxy.dev/entry',
  /** On a VMImage made by a subscription: what the list says of the entry. */
  entryVersion: 'imageproxy.dev/entry-version',
  entryTitle: 'imageproxy.dev/entry-title',
  mpuri: 'imageproxy.dev/mpuri',
  /** On a VMImage made by a subscription: what the list calls itself, and who vouches for the entry. */
  list: 'imageproxy.dev/list',
  endorser: 'imageproxy.dev/endorser',
  endorserIssuer: 'imageproxy.dev/endorser-issuer',
  /** On a VMImage made by a subscription: version of the list that the entry was last taken from. */
  listVersion: 'imageproxy.dev/list-version',
  /** On a VMImage made by a subscription: hash of all that the subscription wants of it. */
  entryHash: 'imageproxy.dev/entry-hash',
  /** On a VMImage that a subscription has taken out of service: Removed, Expired or Untrusted. */
  retired: 'imageproxy.dev/retired',
} as const;

export const LABELS = {
  /** On a VMImage made by a subscription: name of the subscription, to select by. */
  subscription: 'imageproxy.dev/subscription',
} as const;
