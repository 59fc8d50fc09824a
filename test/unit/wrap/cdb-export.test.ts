import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { afterAll, afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { Cdb } from '../../../src/wire/cdb.ts'
import { parseIpAddress, parseNetwork } from '../../../src/wire/ip-address.ts'
import { TcpRulesFile } from '../../../src/wrap/gate/tcp-rules-file.ts'
import { CdbExport, type CdbExportOptions, type ListedGrant } from '../../../src/wrap/services/cdb-export.ts'
import { eventually } from '../../harness/eventually.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const temporary = temporaryDirectory()
afterAll(() => temporary.remove())

let directory = ''
let runs = 0
let exports: CdbExport[] = []
let lines: string[] = []
let grants: ListedGrant[] = []
let now = 1_764_000_000_000

beforeEach(() => {
  directory = `${temporary.path}/${runs++}`
  mkdirSync(directory)
  exports = []
  lines = []
  grants = []
})
afterEach(async () => {
  for (const exported of exports) await exported.stop()
})

const grant = (network: string, until?: number, login?: string): ListedGrant => {
  const parsed = parseNetwork(network)
  if (parsed === undefined) throw new Error(network)
  return { network: parsed, until, login }
}

const cdb = () => `${directory}/tcp.smtp.cdb`
const rules = () => `${directory}/tcp.smtp`

function newExport(options: Partial<CdbExportOptions> = {}): CdbExport {
  const exported = new CdbExport({
    path: cdb(),
    rulesPath: rules(),
    relayclientValue: '',
    list: async () => grants,
    onChange: () => {},
    refusal: () => undefined,
    timeoutMs: 1000,
    intervalMs: 60_000,
    unprovenMs: undefined,
    clock: () => now,
    monotonic: () => now,
    log: createLog('wrap', { write: line => lines.push(line) }),
    ...options,
  })
  exports.push(exported)
  return exported
}

async function started(options?: Partial<CdbExportOptions>): Promise<CdbExport> {
  const exported = newExport(options)
  await exported.start()
  return exported
}

/** The decision of a tcpserver with the file, by each kind of tcpserver. */
function ruleFor(ip: string): { allow: boolean; relay: boolean; environment: object } {
  const parsed = parseIpAddress(ip)
  if (parsed === undefined) throw new Error(ip)
  const { allow, environment } = new TcpRulesFile(cdb()).find({ ip: parsed })
  return { allow, relay: environment['RELAYCLIENT'] !== undefined, environment }
}
const relays = (ip: string): boolean => ruleFor(ip).relay

describe('a fault in the site’s own rules', () => {
  const faults: readonly (readonly [string, () => void])[] = [
    ['a line that is no rule', () => writeFileSync(rules(), ':allow\n192.0.2.7:\n')],
    ['no file', () => rmSync(rules())],
    [
      'a directory in its place',
      () => {
        rmSync(rules())
        mkdirSync(rules())
      },
    ],
  ]

  test.each(faults)('%s: a grant that ends is removed, a new one is added, and a deny stays', async (_, breakRules) => {
    writeFileSync(rules(), '203.0.113.:deny\n:allow\n')
    grants = [grant('192.0.2.60', now / 1000 + 20), grant('192.0.2.61')]
    const exported = await started()
    expect([relays('192.0.2.60'), relays('192.0.2.61')]).toEqual([true, true])
    breakRules()
    now += 21_000
    grants = [grant('192.0.2.60', now / 1000 - 1), grant('192.0.2.62')]
    await exported.refresh()
    expect(['192.0.2.60', '192.0.2.61', '192.0.2.62'].map(relays)).toEqual([false, false, true])
    expect(ruleFor('203.0.113.9').allow).toBe(false)
    await exported.refresh()
    const refused = lines.filter(line => line.includes('event=cdb_rules_refused'))
    expect(refused.map(line => / path=(\S+) /.exec(line)?.[1])).toEqual([rules()])
    await exported.stop()
    expect([relays('192.0.2.62'), ruleFor('203.0.113.9').allow]).toEqual([false, false])
  })

  test('the next valid rules apply at once', async () => {
    writeFileSync(rules(), ':allow\n')
    const exported = await started()
    writeFileSync(rules(), 'x:\n')
    await exported.refresh()
    writeFileSync(rules(), ':deny\n')
    await exported.refresh()
    expect(ruleFor('192.0.2.1').allow).toBe(false)
    expect(lines.at(-2)).toContain(`event=cdb_rules_accepted path=${rules()}`)
  })

  test('a start with invalid rules uses those of the last run, and none of its grants', async () => {
    writeFileSync(rules(), '203.0.113.:deny\n:allow\n')
    grants = [grant('192.0.2.60'), grant('2001:db8::/64'), grant('192.0.2.61')]
    await started()
    exports = [] // As after kill -9: the grants stay in the file.
    expect(relays('192.0.2.60')).toBe(true)
    writeFileSync(rules(), 'nonsense:\n')
    grants = [grant('192.0.2.61')]
    await started()
    expect(['192.0.2.60', '2001:db8::8', '192.0.2.61'].map(relays)).toEqual([false, false, true])
    expect(ruleFor('203.0.113.9').allow).toBe(false)
  })

  test.each([
    ['a missing cdb', () => {}],
    ['a cdb that another program made', () => writeFileSync(cdb(), readFileSync('/bin/true'))],
  ])('with %s and rules that were never valid, the file has only current grants', async (_, prepare) => {
    prepare()
    writeFileSync(rules(), 'nonsense:\n')
    grants = [grant('192.0.2.61')]
    const exported = await started()
    expect([relays('192.0.2.61'), relays('192.0.2.62')]).toEqual([true, false])
    await exported.stop()
    expect(relays('192.0.2.61')).toBe(false)
  })
})

test('the first write of a start contains no grants', async () => {
  writeFileSync(rules(), ':allow\n')
  grants = [grant('192.0.2.60')]
  await started()
  exports = []
  const asked = Promise.withResolvers<readonly ListedGrant[]>()
  const second = newExport({ list: () => asked.promise })
  const start = second.start()
  expect(relays('192.0.2.60')).toBe(false)
  asked.resolve([grant('192.0.2.61')])
  await start
  expect(relays('192.0.2.61')).toBe(true)
})

test('a query after a reload and one after a change follow each other, so that the newer list stays', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  onTestFinished(() => void vi.useRealTimers())
  writeFileSync(rules(), ':allow\n')
  const queries: PromiseWithResolvers<readonly ListedGrant[]>[] = []
  let changed = (): void => expect.unreachable()
  const exported = newExport({
    list: () => {
      const query = Promise.withResolvers<readonly ListedGrant[]>()
      queries.push(query)
      return query.promise
    },
    onChange: listener => {
      changed = listener
    },
  })
  const start = exported.start()
  queries[0]?.resolve([])
  await start
  const reload = exported.refresh()
  await vi.advanceTimersByTimeAsync(0)
  expect(queries.length).toBe(2)
  // The store changes after it has read the rows of this query.
  changed()
  await vi.advanceTimersByTimeAsync(60_000)
  expect(queries.length).toBe(2)
  queries[1]?.resolve([grant('192.0.2.60')])
  await reload
  await vi.advanceTimersByTimeAsync(60_000)
  expect(queries.length).toBe(3)
  queries[2]?.resolve([grant('192.0.2.61')])
  await vi.advanceTimersByTimeAsync(0)
  expect(['192.0.2.60', '192.0.2.61'].map(relays)).toEqual([false, true])
})

test('reloads during a query each query once, one after the other', async () => {
  writeFileSync(rules(), ':allow\n')
  let running = 0
  let most = 0
  let queries = 0
  const exported = await started({
    list: async () => {
      queries += 1
      running += 1
      most = Math.max(most, running)
      await setImmediate()
      running -= 1
      return []
    },
  })
  await Promise.all([exported.refresh(), exported.refresh(), exported.refresh()])
  expect({ most, queries }).toEqual({ most: 1, queries: 4 })
})

test('a grant that ends is removed while the store does not answer', async () => {
  writeFileSync(rules(), ':allow\n')
  grants = [grant('192.0.2.60', now / 1000 + 0.2)]
  const answers = [Promise.resolve(grants)]
  const started = performance.now()
  const exported = newExport({
    list: () => answers.shift() ?? new Promise(() => {}),
    clock: () => now + (performance.now() - started),
    intervalMs: 20,
    timeoutMs: 60_000,
  })
  await exported.start()
  await eventually('the grant is removed', () => !relays('192.0.2.60'))
})

describe('a store that does not answer', () => {
  const failing = () => Promise.reject(new Error('may not be the primary any more'))

  test('in a cluster: the grants and allowances are removed when they count no longer, and are there with the next answer', async () => {
    writeFileSync(rules(), '203.0.113.:deny\n:allow\n')
    grants = [grant('192.0.2.60', now / 1000 + 3600), grant('192.0.2.61')]
    let isCut = false
    const exported = await started({ unprovenMs: 4000, list: () => (isCut ? failing() : Promise.resolve(grants)) })
    isCut = true
    now += 3900
    await exported.refresh()
    expect(['192.0.2.60', '192.0.2.61'].map(relays)).toEqual([true, true])
    now += 200
    await exported.refresh()
    expect(['192.0.2.60', '192.0.2.61'].map(relays)).toEqual([false, false])
    // The site's own rules stay.
    expect(ruleFor('203.0.113.9').allow).toBe(false)
    isCut = false
    await exported.refresh()
    expect(['192.0.2.60', '192.0.2.61'].map(relays)).toEqual([true, true])
  })

  test('in a cluster: the age of the proof counts, and not that of the answer', async () => {
    writeFileSync(rules(), ':allow\n')
    grants = [grant('192.0.2.61')]
    let isCut = false
    const exported = await started({
      unprovenMs: 4000,
      list: async (_, onProof) => {
        if (isCut) return failing()
        onProof(now - 3000)
        return grants
      },
    })
    isCut = true
    now += 900
    await exported.refresh()
    expect(relays('192.0.2.61')).toBe(true)
    now += 200
    await exported.refresh()
    expect(relays('192.0.2.61')).toBe(false)
  })

  test('in a cluster: the grants are removed also while a query is under way', async () => {
    writeFileSync(rules(), ':allow\n')
    grants = [grant('192.0.2.61')]
    const answers = [Promise.resolve(grants)]
    const began = performance.now()
    const exported = newExport({
      list: () => answers.shift() ?? new Promise(() => {}),
      monotonic: () => performance.now() - began,
      intervalMs: 20,
      unprovenMs: 300,
      timeoutMs: 60_000,
    })
    await exported.start()
    await eventually('the allowance is removed', () => !relays('192.0.2.61'))
  })

  test('on a single server: an allowance stays', async () => {
    writeFileSync(rules(), ':allow\n')
    grants = [grant('192.0.2.61')]
    let isCut = false
    const exported = await started({ list: () => (isCut ? failing() : Promise.resolve(grants)) })
    isCut = true
    now += 3_600_000
    await exported.refresh()
    expect(relays('192.0.2.61')).toBe(true)
  })
})

describe('a directory that cannot be written', () => {
  /** Keeps the file from being replaced in one step. */
  const blocked = () => `${cdb()}.tmp.${process.pid}`

  test('grants are removed from the file in place, with one log line', async () => {
    writeFileSync(rules(), ':allow\n')
    grants = [grant('192.0.2.60'), grant('192.0.2.61')]
    const exported = await started()
    mkdirSync(blocked())
    grants = [grant('192.0.2.61')]
    await exported.refresh()
    expect(['192.0.2.60', '192.0.2.61'].map(relays)).toEqual([false, true])
    grants = [grant('192.0.2.62')]
    await exported.refresh()
    expect(['192.0.2.61', '192.0.2.62'].map(relays)).toEqual([false, true])
    await exported.stop()
    expect(relays('192.0.2.62')).toBe(false)
    expect(lines.filter(line => line.includes('event=cdb_write_failed')).length).toBe(1)
  })

  test('at the end the export tries again until the grants are removed', async () => {
    writeFileSync(rules(), ':allow\n')
    grants = [grant('192.0.2.60')]
    const exported = await started()
    mkdirSync(blocked())
    renameSync(cdb(), `${cdb()}.away`)
    mkdirSync(cdb())
    const stop = exported.stop()
    await eventually('a log line', () => lines.some(line => line.includes('event=cdb_write_failed')))
    rmSync(cdb(), { recursive: true })
    renameSync(`${cdb()}.away`, cdb())
    await stop
    expect(relays('192.0.2.60')).toBe(false)
  })

  test('a start names the account that must own the directory, and leaves no grant of a killed run', async () => {
    writeFileSync(rules(), ':allow\n')
    grants = [grant('192.0.2.60')]
    await started()
    exports = []
    mkdirSync(blocked())
    const second = newExport()
    exports = []
    await expect(second.start()).rejects.toThrow('Give its directory to wrap.user')
    expect(relays('192.0.2.60')).toBe(false)
  })
})

describe('a deny of the site overrides a grant', () => {
  test.each([
    // Debian's ucspi-tcp-ipv6, ucspi-tcp6, and the oldest of them.
    ['2001:db8:::deny', '2001:db8::8'],
    ['2001:db8::deny', '2001:db8:1::8'],
    ['2001:db8::/32:deny', '2001:db8:1::8'],
    ['2001:db8::8:deny', '2001:db8::8'],
    ['2001:DB8:0::8:deny', '2001:db8::8'],
    ['2001:db8::/32:deny', '2001:db8:5::/64'],
    ['2001:db8::deny', '2001:db8:5::/64'],
    ['192.0.2.:deny', '192.0.2.7'],
    ['192.0.2.0/28:deny', '192.0.2.7'],
    ['192./8:deny', '192.0.2.0/24'],
    ['192.0.2.0-9:deny', '192.0.2.7'],
    [':deny', '192.0.2.7'],
  ])('%s against a grant for %s', async (rule, granted) => {
    writeFileSync(rules(), `${rule}\n`)
    grants = [grant(granted)]
    await started()
    expect(ruleFor(granted.split('/')[0] ?? '')).toMatchObject({ allow: false, relay: false })
    // No tcpserver finds a record of the export.
    expect(new Cdb(readFileSync(cdb())).get('#auth-relay')?.toString()).toBe('grants=0')
  })

  test('and a more specific deny stays in force within an allowed network', async () => {
    const denies = ['10.1.0.0/28:deny', '10.1.1.5:deny', '10.1.2.:deny', '2001:db8:1:2::deny', '2001:db8:1:3::/64:deny']
    writeFileSync(rules(), `${denies.join('\n')}\n`)
    grants = [grant('10.1.0.0/16'), grant('2001:db8:1::/48')]
    await started()
    for (const ip of ['10.1.0.9', '10.1.1.5', '10.1.2.9', '2001:db8:1:2:3::1', '2001:db8:1:3::1'])
      expect([ip, ruleFor(ip).allow]).toEqual([ip, false])
    for (const ip of ['10.1.9.9', '2001:db8:1:4::1']) expect([ip, relays(ip)]).toEqual([ip, true])
    // A prefix as text would hide denies in CIDR notation.
    const file = new Cdb(readFileSync(cdb()))
    for (const key of ['10.1.', '2001:db8:1:']) expect(file.get(key)).toBeUndefined()
  })
})

test("a grant keeps the variables of the site's rule for its network", async () => {
  writeFileSync(rules(), '192.0.2.:allow,RBLSMTPD="",X="\xe4"\n2001:db8:::allow,Y="1"\n2001:db8::/32:allow,Z="1"\n')
  grants = [grant('192.0.2.7', now / 1000 + 60, 'ann'), grant('2001:db8::8')]
  await started()
  expect(ruleFor('192.0.2.7').environment).toMatchObject({ RELAYCLIENT: '', AUTHRELAY_LOGIN: 'ann', RBLSMTPD: '' })
  const keys = new Map(
    [...new Cdb(readFileSync(cdb())).records()].map(({ key, value }) => [key, Buffer.from(value).toString('latin1')]),
  )
  // Each tcpserver finds the same variables as with the site's rule.
  expect(keys.get('2001:db8::8')).toBe('+RELAYCLIENT=\0+Y=1\0')
  expect(keys.get('2001:0DB8:0000:0000:0000:0000:0000:0008')).toBe('+RELAYCLIENT=\0+Z=1\0')
})
