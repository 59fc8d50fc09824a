import { chmodSync, readFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../harness/eventually.ts'
import { Pop3Conversation } from '../../harness/pop3/pop3-conversation.ts'
import { descendantsOf } from '../../harness/processes/process-status.ts'
import { SmtpConversation } from '../../harness/smtp/smtp-conversation.ts'
import { Stack, TEST_IDS, TEST_PASSWORD, type TestSettings } from '../../harness/stack.ts'

const isRoot = process.geteuid?.() === 0

const BASE = {
  database: { embedded: true },
  grants: { grant_loopback: true },
  popup: { listen: ['127.0.0.1:0'] },
  sslwrap: { listener: [{ listen: '127.0.0.1:0', backend: '127.0.0.1:9' }] },
  authd: { user: `${TEST_IDS.authd}` },
  wrap: { listen: ['127.0.0.1:0'], query_listen: ['127.0.0.1:0'], policy_listen: ['127.0.0.1:0'] },
} satisfies TestSettings

let stack: Stack

const portOf = (program: string): number => {
  const ready = stack.program('auth-relay').lines.findLast(line => line.startsWith(`${program} ready listen=`))
  return Number(/:(\d+)( |$)/.exec(ready ?? '')?.[1])
}
const pop3 = (): Pop3Conversation => Pop3Conversation.over(createConnection(portOf('popup'), '127.0.0.1'))
const codeAtRcpt = async (): Promise<number> => {
  const client = SmtpConversation.over(createConnection(portOf('wrap'), '127.0.0.1'))
  try {
    return (await client.askFor('somebody@elsewhere.example')).code
  } finally {
    client.close()
  }
}
/** The answer of the gate's query service for an address. */
const answerFor = async (ip: string): Promise<string> => {
  const ready = stack.program('auth-relay').lines.findLast(line => line.startsWith('wrap ready '))
  const port = Number(/ query=\S+:(\d+)( |$)/.exec(ready ?? '')?.[1])
  const client = createConnection(port, '127.0.0.1').setEncoding('utf8')
  client.write(`relay v=1 ip=${ip}\n`)
  return new Promise((resolve, reject) => {
    client.once('error', reject).once('data', text => {
      client.destroy()
      resolve(String(text).split(/[ \n]/, 1)[0] ?? '')
    })
  })
}
/**
 * The policy service's answer for a message of an address; each message has a separate instance.
 */
const policyFor = async (ip: string, instance: string): Promise<string> => {
  const ready = stack.program('auth-relay').lines.findLast(line => line.startsWith('wrap ready '))
  const port = Number(/ policy=\S+:(\d+)( |$)/.exec(ready ?? '')?.[1])
  const client = createConnection(port, '127.0.0.1').setEncoding('utf8')
  client.write(
    `request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=${ip}\ninstance=${instance}\nsender=a@b.example\nrecipient=c@d.example\n\n`,
  )
  return new Promise((resolve, reject) => {
    client.once('error', reject).once('data', text => {
      client.destroy()
      resolve(
        String(text)
          .replace(/^action=/, '')
          .split(/[ \n]/, 1)[0] ?? '',
      )
    })
  })
}
/** Announces a login as popup does. */
const announce = async (ip: string): Promise<string> => {
  const client = createConnection(`${stack.directory}/run/authd.sock`).setEncoding('utf8')
  client.write(`login v=1 id=7f3a.12 ip=${ip} daemon=popup tls=1 method=pass user=ann\n`)
  return new Promise((resolve, reject) => {
    client.once('error', reject).once('data', text => {
      client.destroy()
      resolve(String(text))
    })
  })
}
/** Writes the settings with the mode that `auth-relay init` gives them. */
const configure = (settings: TestSettings): void => {
  const names = new Set([...Object.keys(BASE), ...Object.keys(settings)])
  const base: TestSettings = BASE
  stack.configure(Object.fromEntries([...names].map(name => [name, { ...base[name], ...settings[name] }])))
  chmodSync(stack.config, 0o600)
}
/** The `reloaded` line of each program after a SIGHUP to `auth-relay up`. */
const reload = async (): Promise<Readonly<Record<string, Readonly<Record<string, string>>>>> => {
  const up = stack.program('auth-relay')
  const names = ['auth-relay', 'authd', 'popup', 'sslwrap', 'wrap'] as const
  const before = new Map(names.map(name => [name, stack.log(name).length]))
  up.signal('SIGHUP')
  const found: Record<string, Readonly<Record<string, string>>> = {}
  for (const name of names) {
    const line = await eventually(`${name} has reloaded`, () =>
      stack
        .log(name)
        .slice(before.get(name))
        .find(({ fields }) => fields['event'] === 'settings_reloaded'),
    )
    found[name] = line.fields
  }
  return found
}

describe.runIf(isRoot)('SIGHUP to auth-relay up, with a settings file of mode 0600', { timeout: 120_000 }, () => {
  beforeAll(async () => {
    stack = new Stack(BASE)
    chmodSync(stack.config, 0o600)
    stack.account('ann', ['Subject: lunch\n\nAt noon?\n'])
    await stack.start('auth-relay', { args: ['up', '--config', stack.config] })
  })
  beforeEach(() => stack.showLogsOnFailure())
  afterAll(() => stack?.stop())

  test('changes monitor, login process, running worker and authd', async () => {
    const first = pop3()
    await first.login('ann', TEST_PASSWORD)
    await first.ask('STAT', /^\+OK 1 28$/)
    configure({
      '': { log_level: 'debug' },
      grants: { grant_loopback: true, exp_time: '2h' },
      popup: { hostname: 'new.example.org', fail_delays: ['2s'], login_delay: 0 },
      pop3d: { sizes: 'file', lock: 'exclusive' },
      authd: { user: `${TEST_IDS.authd}`, commit_wait: 700 },
      wrap: { ...BASE.wrap, socket_mode: '0600' },
    })
    const reloaded = await reload()
    expect(reloaded['authd']?.['restart_for']).toBe('log_level authd.commit_wait')
    expect(reloaded['popup']?.['restart_for']).toBe('log_level')
    expect(reloaded['sslwrap']?.['restart_for']).toBe('log_level')
    expect(reloaded['wrap']?.['restart_for']).toBe('wrap.socket_mode')
    // The running session keeps its sizes. The next session in the same process has the new sizes
    // and the lock.
    await first.ask('STAT', /^\+OK 1 28$/)
    const second = pop3()
    await second.login('ann', TEST_PASSWORD)
    await second.ask('STAT', /^\+OK 1 25$/)
    const third = pop3()
    await third.expect(/new\.example\.org/)
    await third.ask('USER ann', /^\+OK/)
    await third.ask(`PASS ${TEST_PASSWORD}`, /^-ERR \[IN-USE\]/)
    const guess = async (): Promise<number> => {
      const client = pop3()
      await client.expect(/^\+OK/)
      await client.ask('USER bob', /^\+OK/)
      const begun = performance.now()
      await client.ask(`PASS ${performance.now()}`, /^-ERR/)
      client.close()
      return performance.now() - begun
    }
    await guess()
    expect(await guess()).toBeGreaterThan(1900)
    for (const client of [first, second, third]) client.close()
    const untils = (): number[] =>
      stack
        .log('popup')
        .filter(({ fields }) => fields['event'] === 'login_accepted')
        .map(({ fields }) => Number(fields['until']))
    const begun = untils()[0] ?? Number.NaN
    // A grant that is younger than 5 s is not written again.
    await eventually('a grant lives longer than before', async () => {
      const client = pop3()
      await client.expect(/^\+OK/)
      await client.ask('USER ann', /^\+OK/)
      await client.ask(`PASS ${TEST_PASSWORD}`, /^(\+OK|-ERR \[IN-USE\])/)
      client.close()
      return untils().some(until => until > begun + 600)
    })
  })

  test('changes the addresses that authd stores and for which the gate opens the relay', async () => {
    expect(await codeAtRcpt()).toBe(250)
    configure({ grants: { grant_loopback: false }, pop3d: { lock: 'none' } })
    await reload()
    expect(await codeAtRcpt()).not.toBe(250)
    const client = pop3()
    await client.login('ann', TEST_PASSWORD)
    client.close()
    await stack.waitForLog('popup', { event: 'login_accepted', grant: 'refused', reason: 'loopback' })
  })

  test('closes the gate for a network that never_grant names', async () => {
    const words = ['allow', '198.51.100.0/24', '--for', '1h', '--reason', 'a scanner', '--config', stack.config]
    expect((await (await stack.run('auth-relay', words)).ended).code).toBe(0)
    await eventually('the allowance counts', async () => (await answerFor('198.51.100.7')) === 'yes')
    configure({ grants: { never_grant: ['198.51.100.0/25'] } })
    await reload()
    expect([await answerFor('198.51.100.7'), await answerFor('198.51.100.200')]).toEqual(['no', 'yes'])
  })

  test('ipv6_prefix changes the network of a grant, in authd and in the gate', async () => {
    expect(await announce('2001:db8:1:2::7')).toMatch(/^ok .*committed/)
    expect([await answerFor('2001:db8:1:2::7'), await answerFor('2001:db8:1:2::9')]).toEqual(['yes', 'no'])
    configure({ grants: { grant_loopback: true, ipv6_prefix: 64 } })
    await reload()
    expect(await announce('2001:db8:1:2::7')).toMatch(/^ok .*committed/)
    expect([await answerFor('2001:db8:1:2::9'), await answerFor('2001:db8:1:3::9')]).toEqual(['yes', 'no'])
  })

  test('rates of the policy service apply at once', async () => {
    expect(await announce('192.0.2.77')).toMatch(/^ok .*committed/)
    for (const n of [1, 2, 3]) expect(await policyFor('192.0.2.77', `before ${n}`)).toBe('OK')
    configure({ wrap: { ...BASE.wrap, messages_per_address: 1, recipients_per_login: 100 } })
    await reload()
    const answers = [await policyFor('192.0.2.77', 'after 1'), await policyFor('192.0.2.77', 'after 2')]
    expect(answers).toEqual(['OK', '450'])
    configure({})
    await reload()
    expect(await policyFor('192.0.2.77', 'after 3')).toBe('OK')
  })

  test('grant_wait changes the time that a login waits for authd', async () => {
    const up = stack.program('auth-relay').pid
    const isAuthd = (pid: number): boolean => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('/authd.js')
    const pid = descendantsOf(up).find(process => isAuthd(process.pid))?.pid
    if (pid === undefined) expect.unreachable('authd does not run')
    configure({ popup: { grant_wait: '3s' }, pop3d: { lock: 'none' } })
    await reload()
    process.kill(pid, 'SIGSTOP')
    try {
      const begun = performance.now()
      const client = pop3()
      await client.login('ann', TEST_PASSWORD)
      expect(performance.now() - begun).toBeGreaterThan(2500)
      client.close()
    } finally {
      process.kill(pid, 'SIGCONT')
    }
  })

  test('an invalid file changes nothing, and is reported once', async () => {
    configure({ popup: { hostname: 'wrong.example.org', logins: 0 } })
    stack.program('auth-relay').signal('SIGHUP')
    await stack.waitForLog('auth-relay', { event: 'reload_failed', trigger: 'signal', reason: /popup\.logins/ })
    const client = pop3()
    await client.expect(/@mx\.example\.org|@new\.example\.org|\+OK/)
    client.close()
    expect(stack.program('auth-relay').lines.filter(each => each.includes('wrong.example.org'))).toEqual([])
    configure({})
    await reload()
  })

  test('a program that gets the signal itself reports the remedy', async () => {
    const authd = descendantsOf(stack.program('auth-relay').pid).find(({ commandLine }) =>
      commandLine.some(word => word.endsWith('/dist/authd.js')),
    )
    if (authd === undefined) throw new Error('authd does not run')
    process.kill(authd.pid, 'SIGHUP')
    const line = await stack
      .program('auth-relay')
      .waitForLine(/^authd: level=error event=reload_failed trigger=signal reason="cannot read the settings file /)
    expect(line).toMatch(/mode 0600 .* remedy="restart the program, or send SIGHUP to auth-relay up /)
  })
})
