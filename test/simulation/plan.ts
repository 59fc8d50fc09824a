import * as fc from 'fast-check'

/** Addresses of the population. The last four are ungrantable. */
export const ADDRESSES = [
  '192.0.2.7',
  '192.0.2.8',
  '198.51.100.20',
  '203.0.113.5',
  '2001:db8::7',
  '2001:db8::7:9',
  '2001:db8:0:1::1',
  '64:ff9b::c633:6414',
  '127.0.0.1',
  '10.0.0.1',
  '192.0.2.200',
  '64:ff9b::a00:1',
] as const
/** Addresses of the proxies, which are listed in `proxy_trust` of popup and of the gate. */
export const PROXIES = ['10.0.0.2', '2001:db8:ffff::2'] as const
const NAMED = ['copier', 'till-1', 'till-2', 'Scanner', 'scanner', 'ann', 'ben', 'jürgen']
/** More devices than addresses: several share one. */
export const DEVICES: readonly string[] = [...NAMED, ...Array.from({ length: 16 }, (_, n) => `device-${n}`)]

const NETWORKS = [
  '192.0.2.7/32',
  '192.0.2.0/24',
  '198.51.100.0/24',
  '2001:db8::/64',
  '2001:db8::7/128',
  '64:ff9b::c633:6414/128',
] as const

/** Kills, ordered stops, and reloads (SIGHUP) of the processes. */
const PROCESS_FAULTS = [
  'kill-authd',
  'kill-monitor',
  'kill-gate',
  'kill-export',
  'restart-authd',
  'restart-monitor',
  'restart-gate',
  'reload-authd',
  'reload',
] as const

/**
 * Headers of connections behind a proxy. `itself` names the proxy. The peer of `unlisted` is in no
 * list.
 */
const HEADERS = ['version 1', 'version 2', 'itself', 'LOCAL', 'UNKNOWN', 'UNSPEC', 'unlisted'] as const
export type Header = (typeof HEADERS)[number]

/** A connection by way of a proxy: its header, and the address of its client. */
export type Proxied = { readonly header: Header; readonly proxy: string; readonly ip: string }

/** One event, `gapMs` after the previous one. */
export type Step = { readonly gapMs: number } & Deed

export type Deed =
  | { readonly kind: 'login' | 'guess'; readonly device: string; readonly ip: string }
  | { readonly kind: 'line'; readonly device: string; readonly ip: string; readonly lateSeconds: number }
  | { readonly kind: 'ask'; readonly ip: string }
  | { readonly kind: 'proxied-login'; readonly device: string; readonly proxied: Proxied }
  | { readonly kind: 'proxied-mail'; readonly proxied: Proxied }
  | { readonly kind: 'compare' }
  | { readonly kind: 'export'; readonly seconds: number; readonly intervalSeconds: number }
  | { readonly kind: 'allow' | 'block'; readonly network: string; readonly seconds: number | null }
  | { readonly kind: 'disallow' | 'unblock'; readonly network: string }
  | { readonly kind: 'block-login'; readonly login: string; readonly seconds: number | null }
  | { readonly kind: 'unblock-login'; readonly login: string }
  | { readonly kind: 'sweep' | 'cut' | (typeof PROCESS_FAULTS)[number] }
  | { readonly kind: 'database-down' | 'database-slow'; readonly seconds: number }
  | { readonly kind: 'outcomes-unknown'; readonly statements: number }
  | { readonly kind: 'fail-over' | 'asynchronous' | 'synchronous' }
  | { readonly kind: 'step-machine-clock' | 'step-database-clock'; readonly seconds: number }

/** `isNarrow`: the queues of the processes have room for a few logins only. */
export type Plan = { readonly seed: number; readonly isNarrow: boolean; readonly steps: readonly Step[] }

const address = fc.constantFrom(...ADDRESSES)
const device = fc.constantFrom(...DEVICES)
const network = fc.constantFrom(...NETWORKS)
const period = fc.oneof(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 60, max: 7200 }), fc.constant(null))
const outage = fc.oneof(fc.integer({ min: 1, max: 10 }), fc.integer({ min: 30, max: 3600 }))
const clockStep = fc.oneof(fc.integer({ min: -120, max: 120 }), fc.constantFrom(-86_400, -3600, 3600, 86_400))

const mostly = <T>(...choices: readonly (readonly [number, fc.Arbitrary<T>])[]): fc.Arbitrary<T> =>
  fc.oneof(...choices.map(([weight, arbitrary]) => ({ weight, arbitrary })))

const kinds = <K extends Deed['kind']>(...names: readonly K[]): fc.Arbitrary<{ kind: K }> =>
  fc.record({ kind: fc.constantFrom(...names) })

/** Half of the connections name their client. */
const proxied = fc.record({
  header: fc.oneof(fc.constantFrom(...HEADERS), fc.constantFrom('version 1', 'version 2')),
  proxy: fc.constantFrom(...PROXIES),
  ip: address,
})

/** A long export sees the end of a grant, and has rare queries, so that a plan stays short. */
const exported = fc.oneof(
  fc.record({
    kind: fc.constant('export'),
    seconds: fc.integer({ min: 10, max: 60 }),
    intervalSeconds: fc.constant(5),
  }),
  fc.record({
    kind: fc.constant('export'),
    seconds: fc.integer({ min: 1000, max: 7200 }),
    intervalSeconds: fc.constant(300),
  }),
)

const everyDay = mostly<Deed>(
  [40, fc.record({ kind: fc.constant('login'), device, ip: address })],
  [4, fc.record({ kind: fc.constant('guess'), device, ip: address })],
  [8, fc.record({ kind: fc.constant('line'), device, ip: address, lateSeconds: fc.integer({ min: -300, max: 4000 }) })],
  [30, fc.record({ kind: fc.constant('ask'), ip: address })],
  [5, fc.record({ kind: fc.constant('proxied-login'), device, proxied })],
  [5, fc.record({ kind: fc.constant('proxied-mail'), proxied })],
  [3, kinds('compare', 'sweep')],
  [2, exported],
  [3, fc.record({ kind: fc.constantFrom('allow', 'block'), network, seconds: period })],
  [3, fc.record({ kind: fc.constantFrom('disallow', 'unblock'), network })],
  [1, fc.record({ kind: fc.constant('block-login'), login: device, seconds: period })],
  [2, fc.record({ kind: fc.constant('unblock-login'), login: device })],
)

const faults = mostly<Deed>(
  [1, kinds('cut')],
  [5, kinds(...PROCESS_FAULTS)],
  [3, fc.record({ kind: fc.constantFrom('database-down', 'database-slow'), seconds: outage })],
  [2, fc.record({ kind: fc.constant('outcomes-unknown'), statements: fc.integer({ min: 1, max: 4 }) })],
  [2, kinds('fail-over', 'asynchronous', 'synchronous')],
)

const clockSteps: fc.Arbitrary<Deed> = fc.record({
  kind: fc.constantFrom('step-machine-clock', 'step-database-clock'),
  seconds: clockStep,
})

/** Events follow at once, after minutes, or hours later. */
const gapMs = mostly(
  [6, fc.integer({ min: 0, max: 30 })],
  [3, fc.integer({ min: 31, max: 3000 })],
  [3, fc.integer({ min: 3001, max: 1_900_000 })],
  [2, fc.integer({ min: 1_900_001, max: 28_800_000 })],
)

const steps = (deed: fc.Arbitrary<Deed>, length: number): fc.Arbitrary<Step[]> =>
  fc.array(
    fc.tuple(gapMs, deed).map(([gap, what]) => ({ gapMs: gap, ...what })),
    { minLength: Math.ceil(length / 2), maxLength: length, size: 'max' },
  )

/** Days without faults, days with faults, and days with clock steps as well. */
export const plan = (length: number): fc.Arbitrary<Plan> =>
  fc.record({
    seed: fc.integer({ min: 0, max: 2 ** 31 }),
    isNarrow: fc.boolean(),
    steps: fc.oneof(
      steps(everyDay, length),
      steps(mostly([8, everyDay], [1, faults]), length),
      steps(mostly([16, everyDay], [2, faults], [1, clockSteps]), length),
    ),
  })
