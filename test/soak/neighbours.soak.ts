import {
  appendFileSync,
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { PrivateSyslog } from '../harness/authd/private-syslog.ts'
import { eventually } from '../harness/eventually.ts'
import { SmallDisk } from '../harness/hosts/small-disk.ts'
import { Pop3Conversation } from '../harness/pop3/pop3-conversation.ts'
import { type PopupStack, startPopup } from '../harness/pop3/popup-stack.ts'
import { resourcesOf } from '../harness/processes/process-status.ts'
import { command, describeWith, pathOf, ROOT } from '../harness/runner/describe-with.ts'
import { TEST_IDS, TEST_PASSWORD } from '../harness/stack.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'
import { areAlive, idleSessions } from './crowd.ts'
import { INSPECTED, liveMemory } from './live-memory.ts'
import { Site } from './site.ts'

const MEGABYTE = 1_048_576

describeWith(
  [command('rsyslogd', 'rsyslog'), command('logger', 'bsdutils')],
  'faults of the programs around a site',
  () => {
    let site: Site
    let syslog: PrivateSyslog
    const directory = temporaryDirectory()
    beforeAll(async () => {
      const { path } = directory
      syslog = await PrivateSyslog.start(path)
      site = await Site.start(() => {
        return {
          database: { embedded: true },
          authd: { user: `${TEST_IDS.authd}`, syslog_fifo: syslog.fifo, check_daemon_ipop3d: true },
        }
      })
    })
    beforeEach(() => site.stack.showLogsOnFailure())
    afterAll(async () => {
      await site?.stop()
      await syslog?.stop()
      directory.remove()
    })

    test.each(['SIGTERM', 'SIGKILL'] as const)(
      'rsyslogd ends by %s and starts again: each login that it passes on counts',
      async signal => {
        const first = site.newcomer()
        await syslog.log('ipop3d', `Login user=ann host=[${first}] nmsgs=0/0`)
        await eventually('a login before the restart opens the relay', () => site.mayRelay(first), 30_000)
        await syslog.restart(signal)
        const second = site.newcomer()
        await syslog.log('ipop3d', `Login user=ann host=[${second}] nmsgs=0/0`)
        await eventually('a login after the restart opens the relay', () => site.mayRelay(second), 30_000)
      },
    )

    test.each(['run/authd.sock', 'run/usage.sock'])('%s is removed: authd makes it again', async socket => {
      const path = `${site.stack.directory}/${socket}`
      rmSync(path)
      const ip = site.newcomer()
      await site.login(ip)
      await eventually('the login counts', () => site.mayRelay(ip), 30_000)
      await eventually('the socket is there again', () => pathExists(path), 30_000)
      const later = site.newcomer()
      await eventually(
        'a later login counts',
        async () => (await site.login(later)) >= 0 && (await site.mayRelay(later)),
        30_000,
      )
    })
  },
)

const pathExists = (path: string): boolean =>
  readdirSync(path.replace(/\/[^/]*$/, '')).includes(path.replace(/^.*\//, ''))

describeWith([ROOT], 'a maildrop on a full disk', () => {
  let running: PopupStack
  let disk: SmallDisk
  beforeAll(async () => {
    running = await startPopup()
    disk = new SmallDisk(4)
  })
  afterAll(async () => {
    await running?.stop()
    disk?.remove()
  })

  test('can be read and emptied', async () => {
    const { uid } = running.ann
    const maildir = `${disk.path}/Maildir`
    for (const path of ['', '/new', '/cur', '/tmp']) {
      mkdirSync(`${maildir}${path}`)
      chownSync(`${maildir}${path}`, uid, uid)
    }
    for (const name of ['A', 'B', 'C']) {
      writeFileSync(`${maildir}/new/${name}`, `Subject: ${name}\n\n${'x\n'.repeat(5000)}`)
      chownSync(`${maildir}/new/${name}`, uid, uid)
      utimesSync(`${maildir}/new/${name}`, 1000, 1000)
    }
    rmSync(running.ann.maildir, { recursive: true })
    chmodSync(disk.path, 0o755)
    symlinkSync(maildir, running.ann.maildir)
    disk.fill()
    const reads = async (count: number): Promise<void> => {
      const client = running.client()
      await client.login('ann')
      await client.ask('STAT', new RegExp(`^\\+OK ${count} `))
      await client.ask('RETR 1', /^\+OK/)
      expect(await client.expectLinesToDot()).toHaveLength(5000 + 2)
      await client.ask('DELE 1', /^\+OK/)
      await client.quit()
    }
    await reads(3)
    await reads(2)
    expect([...readdirSync(`${maildir}/new`), ...readdirSync(`${maildir}/cur`)]).toHaveLength(1)
  })
})

describe('a message file', () => {
  let running: PopupStack
  beforeAll(async () => {
    running = await startPopup()
  })
  afterEach(() => running.closeClients())
  afterAll(() => running?.stop())

  /** 24 MB: far more than the buffers of the sockets hold. */
  const bigMessage = (): string => {
    const path = `${running.bob.maildir}/cur/big:2,`
    writeFileSync(path, 'Subject: big\n\n')
    for (let n = 0; n < 24; n++) appendFileSync(path, `${'x'.repeat(63)}\n`.repeat(MEGABYTE / 64))
    chownSync(path, running.bob.uid, running.bob.uid)
    utimesSync(path, 1000, 1000)
    return path
  }
  /**
   * Begins to read the message, and pauses until `change` is done. Returns the number of octets,
   * and whether the termination came.
   */
  const readWhile = async (change: (path: string) => void): Promise<{ octets: number; whole: boolean }> => {
    const path = bigMessage()
    const socket = connect(running.stack.port('popup'), '127.0.0.1')
    const client = new Pop3Conversation('big', socket)
    await client.login('bob', TEST_PASSWORD)
    socket.removeAllListeners('data').pause()
    socket.write('RETR 1\r\n')
    await eventually(
      'the transfer has begun',
      () => socket.readableLength > 0 || socket.read(0) !== null || socket.bytesRead > 100,
    )
    change(path)
    let [octets, tail] = [0, '']
    for await (const chunk of socket) {
      octets += chunk.length
      tail = (tail + chunk.toString('latin1')).slice(-5)
      if (tail === '\r\n.\r\n') break
    }
    socket.destroy()
    rmSync(path, { force: true })
    return { octets, whole: tail === '\r\n.\r\n' }
  }

  test('that is removed during RETR arrives completely', async () => {
    const { octets, whole } = await readWhile(path => rmSync(path))
    expect(whole).toBe(true)
    expect(octets).toBeGreaterThan(24 * MEGABYTE)
  })

  test('that becomes shorter during RETR is not sent as complete', async () => {
    const { whole } = await readWhile(path => truncateSync(path, 8 * MEGABYTE))
    expect(whole).toBe(false)
    await running.stack.program('popup').waitForLine(/^pop3d: .*shorter/)
  })
})

describeWith([command('sh', 'dash')], 'a checker', () => {
  /** Behaves as the login name demands; a login of an account is accepted with any password. */
  const CHECKER = (uid: number, home: string): string => `
    read -r line <&3
    login=$(printf %s "$line" | tr '\\0' '\\n' | head -n 1)
    case $login in
      hang*) exec sleep 3600 ;;
      deaf*) exec 3<&-; exec sleep 3600 ;;
      crash*) kill -SEGV $$ ;;
      flood*) exec yes 'a checker that talks without end' ;;
      children*) sleep 3600 & sleep 3600 & wait ;;
      ann*) cd ${home} && exec setpriv --reuid ${uid} --regid ${uid} --clear-groups "$@" ;;
    esac
    exit 1`
  let running: PopupStack
  beforeAll(async () => {
    running = await startPopup(
      stack => {
        const script = `${stack.directory}/checker`
        writeFileSync(script, `#!/bin/sh\n${CHECKER(61221, `${stack.directory}/mail/ann`)}\n`, { mode: 0o755 })
        return { checker: 'checkpassword', checkpassword: [pathOf('sh') ?? 'sh', script], check_timeout: 2 }
      },
      {},
      { env: INSPECTED },
    )
  })
  afterAll(() => running?.stop())

  test('that hangs, crashes, floods or leaves children affects only its own logins', async () => {
    const popup = running.stack.program('popup')
    await running.client().login('ann')
    const { processes } = resourcesOf(popup.pid)
    const inUse = await liveMemory(popup)
    const bad = ['hang', 'deaf', 'crash', 'flood', 'children'].flatMap(name =>
      Array.from({ length: 8 }, () => running.client()).map(client => ({ name, client })),
    )
    const refused = bad.map(async ({ name, client }) => {
      await client.expect(/^\+OK </)
      await client.ask(`USER ${name}`, /^\+OK/)
      await client.ask(`PASS ${TEST_PASSWORD}`, /^-ERR \[(SYS\/TEMP|AUTH)\]/)
    })
    const good = running.client()
    const started = performance.now()
    await good.login('ann')
    expect(performance.now() - started, 'a right login meanwhile').toBeLessThan(5000)
    await Promise.all(refused)
    running.closeClients()
    await eventually('no checker is left', () => resourcesOf(popup.pid).processes <= processes, 20_000)
    expect((await liveMemory(popup)) - inUse).toBeLessThan(16 * MEGABYTE)
    expect(running.authd.events.filter(({ user }) => user !== 'ann')).toEqual([])
    await running.client().login('ann')
  })
})

describeWith([command('faketime')], 'the clock of the host', () => {
  const LIBRARY = '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1'
  const { path, remove } = temporaryDirectory()
  const set = (offset: string): void => writeFileSync(`${path}/clock`, `${offset}\n`)
  let running: PopupStack
  beforeAll(async () => {
    set('+0')
    const env = {
      LD_PRELOAD: LIBRARY,
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      FAKETIME_NO_CACHE: '1',
      FAKETIME_TIMESTAMP_FILE: `${path}/clock`,
    }
    running = await startPopup({}, {}, { env })
  })
  beforeEach(() => running.stack.showLogsOnFailure())
  afterAll(async () => {
    await running?.stop()
    remove()
  })

  test('is set by days, forwards and back: sessions and logins continue, and no process ends', async () => {
    const { stack } = running
    const before = resourcesOf(stack.program('popup').pid).processes
    const sessions = await idleSessions(stack.port('popup'), 5)
    for (const offset of ['+2d', '-2d', '+400d', '+0']) {
      set(offset)
      for (const user of ['ann', 'bob']) {
        const client = running.client()
        await client.login(user)
        await client.quit()
      }
    }
    expect(await areAlive(sessions)).toBe(sessions.length)
    expect(resourcesOf(stack.program('popup').pid).processes).toBe(before + 2)
    expect(stack.transcript()).not.toMatch(/crashed|restart/)
    for (const socket of sessions) socket.destroy()
  })
})
