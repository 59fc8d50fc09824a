import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  linkSync,
  lutimesSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import type { Duplex } from 'node:stream'
import { duplexPair } from 'node:stream'
import { afterAll, describe, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { MaildropService } from '../../../src/pop3d/serve-maildrop.ts'
import { StreamConnection } from '../../../src/sockets/stream-connection.ts'
import { isRoot, makeMaildir, OWNER, parseFile, stateOf } from '../../harness/pop3/maildir.ts'
import { Pop3Client } from '../../harness/pop3/pop3-client.ts'
import { NODE, PROGRAM, socketPair, WorkersForTests } from '../../harness/pop3/pop3d.ts'
import type { TranscriptSettings } from '../../harness/pop3/transcript.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const root = temporaryDirectory()
afterAll(() => root.remove())
const workers = new WorkersForTests(root.path)
afterAll(() => workers.stop())

const maildirOf = (...files: readonly string[]) => makeMaildir(root.path, files.map(parseFile))

const settingsOf = (compat: 'none' | 'qmail'): TranscriptSettings => ({
  compat,
  sizes: compat === 'qmail' ? 'file' : 'wire',
  extraBlank: compat === 'qmail',
  isWritten: { sizes: false, extraBlank: false },
})

/** A session in a separate process, as a checker starts it. */
async function standalone(maildir: string, { compat }: TranscriptSettings): Promise<Duplex> {
  const { client, server } = await socketPair()
  spawn(NODE, [PROGRAM, maildir], {
    stdio: [server, server, 'inherit'],
    env: { COMPAT: compat, AUTHRELAY_ANNOUNCED: '1' },
    ...(isRoot ? OWNER : {}),
  })
  server.destroy()
  return client
}

const byWorker = async (maildir: string, settings: TranscriptSettings): Promise<Duplex> =>
  (await workers.connect(maildir, settings)).socket

/** Sessions in the process of the test, and their logs. */
class Service {
  readonly lines: string[] = []
  now = Date.now()
  readonly #service: MaildropService

  constructor(sizes: 'wire' | 'file' = 'wire') {
    const common = { compat: 'none', extraBlank: false, lock: 'none' } as const
    this.#service = new MaildropService({ ...common, sizes, idleTime: 1_200_000, capabilities: [] }, () => this.now)
  }

  open(maildir: string): Duplex {
    const [client, server] = duplexPair()
    const log = createLog('pop3d', { level: 'debug', write: line => this.lines.push(line) })
    void this.#service.serve(new StreamConnection(server, server), maildir, new Uint8Array(0), log)
    return client
  }

  /** Sends the commands; returns the replies after the one to the login. */
  async session(maildir: string, ...commands: readonly string[]): Promise<string> {
    const client = this.open(maildir)
    client.end(commands.map(command => `${command}\r\n`).join(''))
    let text = ''
    client.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
    })
    await once(client, 'end')
    return text.slice('+OK \r\n'.length)
  }

  logged(event: string): readonly string[] {
    return this.lines.filter(line => line.includes(` event=${event} `))
  }
}

/** Its folders have not changed for a long time, so that the cache uses the scan again. */
function settle(maildir: string): void {
  for (const folder of ['new', 'cur']) utimesSync(`${maildir}/${folder}`, 1000, 1000)
}

describe.each([
  ['sessions of one worker', byWorker, byWorker],
  ['sessions of two processes', standalone, standalone],
  ['a session of a worker, and one of a process', byWorker, standalone],
])('%s', (_, open, openOther) => {
  test('QUIT of one session while another reads: every message stays readable, with its size', async () => {
    const files = Array.from({ length: 20 }, (__, index) => `new/${index} mtime=${index + 1} "number ${index}\\n"`)
    const maildir = maildirOf(...files)
    const reader = new Pop3Client(await open(maildir, settingsOf('none')))
    expect(await reader.line()).toBe('+OK ')
    expect(await reader.say('RETR 1')).toBe('+OK ')
    expect(await reader.line()).toBe('number 0')
    expect(await reader.line()).toBe('.')
    const scanner = new Pop3Client(await openOther(maildir, settingsOf('none')))
    expect(await scanner.line()).toBe('+OK ')
    expect(await scanner.say('DELE 20')).toBe('+OK ')
    expect(await scanner.say('QUIT')).toBe('+OK ')
    expect(await scanner.rest()).toBe('')
    for (let number = 2; number < 20; number += 1) {
      expect(await reader.say(`LIST ${number}`)).toBe(`+OK ${number} ${`number ${number - 1}\r\n`.length}`)
      expect(await reader.say(`UIDL ${number}`)).toBe(`+OK ${number} ${number - 1}`)
      for (const command of [`TOP ${number} 0`, `RETR ${number}`]) {
        expect(await reader.say(command)).toBe('+OK ')
        expect(await reader.line()).toBe(`number ${number - 1}`)
        expect(await reader.line()).toBe('.')
      }
    }
    expect(await reader.say('RETR 20')).toBe('-ERR unable to open that message')
    for (const number of [1, 5, 20]) expect(await reader.say(`DELE ${number}`)).toBe('+OK ')
    expect(await reader.say('QUIT')).toBe('+OK ')
    expect(await reader.rest()).toBe('')
    const left = Array.from({ length: 19 }, (__, index) => index).filter(index => index !== 0 && index !== 4)
    expect(stateOf(maildir)).toEqual(left.map(index => `cur/${index}:2, "number ${index}\\n"`).sort())
  })

  test('with compat = "qmail" a renamed message cannot be opened, and DELE leaves it', async () => {
    const maildir = maildirOf('new/A "a\\n"')
    const reader = new Pop3Client(await open(maildir, settingsOf('qmail')))
    expect(await reader.line()).toBe('+OK ')
    const scanner = new Pop3Client(await openOther(maildir, settingsOf('qmail')))
    expect(await scanner.line()).toBe('+OK ')
    expect(await scanner.say('QUIT')).toBe('+OK ')
    expect(await scanner.rest()).toBe('')
    expect(await reader.say('RETR 1')).toBe('-ERR unable to open that message')
    expect(await reader.say('DELE 1')).toBe('+OK ')
    expect(await reader.say('QUIT')).toBe('-ERR unable to unlink all deleted messages')
    expect(await reader.rest()).toBe('+OK \r\n')
    expect(stateOf(maildir)).toEqual(['cur/A:2, "a\\n"'])
  })
})

test('a program that renames files all the time hides no message', async () => {
  const maildir = maildirOf(...Array.from({ length: 50 }, (_, index) => `new/${index} "number ${index}\\n"`))
  const client = new Pop3Client(await byWorker(maildir, settingsOf('none')))
  expect(await client.line()).toBe('+OK ')
  const flags = ['S', 'RS', 'FS', 'T', '']
  const rename = (round: number) => {
    for (const folder of ['new', 'cur']) {
      for (const name of readdirSync(`${maildir}/${folder}`)) {
        const base = name.replace(/:.*$/, '')
        renameSync(`${maildir}/${folder}/${name}`, `${maildir}/cur/${base}:2,${flags[(round + base.length) % 5]}`)
      }
    }
  }
  let octets = 0
  for (let number = 1; number <= 50; number += 1) {
    rename(number)
    expect(await client.say(`TOP ${number} 0`)).toBe('+OK ')
    const first = await client.line()
    expect(await client.line()).toBe('.')
    rename(number + 1)
    expect(await client.say(`RETR ${number}`)).toBe('+OK ')
    expect(await client.line()).toBe(first)
    octets += first.length + 2
    expect(await client.line()).toBe('.')
  }
  expect(await client.say('STAT')).toBe(`+OK 50 ${octets}`)
  for (let number = 1; number <= 50; number += 1) expect(await client.say(`DELE ${number}`)).toBe('+OK ')
  rename(7)
  expect(await client.say('QUIT')).toBe('+OK ')
  expect(stateOf(maildir)).toEqual([])
})

describe('sizes', () => {
  test.each(['wire', 'file'] as const)(
    'of a file that is changed in place agree with the sent octets (%s)',
    async sizes => {
      const service = new Service(sizes)
      const maildir = maildirOf('cur/A mtime=1 "a\\n"', 'cur/B mtime=2 "b\\n"')
      settle(maildir)
      const [a, b] = sizes === 'wire' ? [3, 3] : [2, 2]
      expect(await service.session(maildir, 'STAT')).toBe(`+OK 2 ${a + b}\r\n`)
      appendFileSync(`${maildir}/cur/B`, 'X-Filter: seen\n')
      // Keeps the time of the file, because a file of the current second would be left out.
      utimesSync(`${maildir}/cur/B`, 3, 3)
      const grown = b + (sizes === 'wire' ? 16 : 15)
      const sent = '+OK \r\nb\r\nX-Filter: seen\r\n.\r\n'
      // Two messages. The server checks their files again after 4 ms.
      service.now += 5
      expect(await service.session(maildir, 'LIST', 'RETR 2')).toBe(`+OK \r\n1 ${a}\r\n2 ${grown}\r\n.\r\n${sent}`)
      truncateSync(`${maildir}/cur/A`, 0)
      utimesSync(`${maildir}/cur/A`, 1, 1)
      // RETR always notices the change. Later replies of every session have the right size.
      expect(await service.session(maildir, 'RETR 1', 'LIST')).toBe(`+OK \r\n.\r\n+OK \r\n1 0\r\n2 ${grown}\r\n.\r\n`)
      expect(await service.session(maildir, 'STAT')).toBe(`+OK 2 ${grown}\r\n`)
    },
  )

  test('of a message that moves while it is measured agree with the sent octets, also later', async () => {
    const service = new Service()
    const maildir = maildirOf('new/A "a\\nb\\n"')
    const client = new Pop3Client(service.open(maildir))
    expect(await client.line()).toBe('+OK ')
    renameSync(`${maildir}/new/A`, `${maildir}/cur/A:2,S`)
    expect(await client.say('LIST 1')).toBe('+OK 1 6')
    expect(await client.say('QUIT')).toBe('+OK ')
    expect(await service.session(maildir, 'STAT')).toBe('+OK 1 6\r\n')
  })

  test.runIf(isRoot)('of an unreadable file are not remembered', async () => {
    // root can read every file, so the session runs under the owner's account.
    const maildir = maildirOf('cur/A mtime=1 "a\\nb\\n"', 'cur/B mtime=2 "b\\n"')
    settle(maildir)
    const ask = async () => {
      const client = new Pop3Client(await byWorker(maildir, settingsOf('none')))
      expect(await client.line()).toBe('+OK ')
      const listed = await client.say('LIST 1')
      const opened = await client.say('RETR 1')
      client.end()
      return [listed, opened]
    }
    chmodSync(`${maildir}/cur/A`, 0o600)
    chownSync(`${maildir}/cur/A`, 0, 0)
    expect(await ask()).toEqual(['+OK 1 4', '-ERR unable to open that message'])
    chownSync(`${maildir}/cur/A`, OWNER.uid, OWNER.gid)
    expect(await ask()).toEqual(['+OK 1 6', '+OK '])
  })
})

describe('the log', () => {
  test('names a message that cannot be opened once for each session, with path and cause', async () => {
    const service = new Service()
    const maildir = maildirOf('cur/A mtime=1 "a\\n"', 'cur/B mtime=2 "b\\n"')
    const client = new Pop3Client(service.open(maildir))
    expect(await client.line()).toBe('+OK ')
    rmSync(`${maildir}/cur/A`)
    symlinkSync('/etc/passwd', `${maildir}/cur/A`)
    unlinkSync(`${maildir}/cur/B`)
    for (const command of ['RETR 1', 'TOP 1 0', 'RETR 1', 'RETR 2']) {
      expect(await client.say(command)).toBe('-ERR unable to open that message')
    }
    expect(await client.say('QUIT')).toBe('+OK ')
    const line = `pop3d: level=warn event=message_unreadable file=${maildir}/cur/A number=1 reason=ELOOP\n`
    expect(service.logged('message_unreadable')).toEqual([line])
  })

  test.runIf(isRoot)('has EACCES for a file of another account, also with one process for each session', async () => {
    const maildir = maildirOf('cur/A "a\\n"')
    chmodSync(`${maildir}/cur/A`, 0o600)
    chownSync(`${maildir}/cur/A`, 0, 0)
    const child = spawn(NODE, [PROGRAM, maildir], { env: { AUTHRELAY_ANNOUNCED: '1' }, ...OWNER })
    let received = ''
    child.stderr.on('data', (chunk: Buffer) => {
      received += chunk.toString()
    })
    child.stdin.end('LIST\r\nRETR 1\r\nRETR 1\r\nQUIT\r\n')
    await once(child, 'close')
    expect(received).toBe(
      `pop3d: level=warn event=message_unreadable pid=${child.pid} file=${maildir}/cur/A number=1 reason=EACCES\n`,
    )
  })

  test('is limited for a session with many messages that cannot be opened', async () => {
    const service = new Service()
    const maildir = maildirOf(...Array.from({ length: 30 }, (_, index) => `cur/${index} "a\\n"`))
    const client = new Pop3Client(service.open(maildir))
    expect(await client.line()).toBe('+OK ')
    for (let index = 0; index < 30; index += 1) {
      rmSync(`${maildir}/cur/${index}`)
      symlinkSync('/etc/passwd', `${maildir}/cur/${index}`)
    }
    for (let number = 1; number <= 30; number += 1) await client.say(`RETR ${number}`)
    await client.say('QUIT')
    expect(service.logged('message_unreadable')).toHaveLength(20)
  })

  test('names the files that are not listed once, and again when their number changes', async () => {
    const service = new Service()
    const maildir = maildirOf('cur/A "a\\n"', 'new/late mtime=future "x\\n"')
    symlinkSync('/etc/passwd', `${maildir}/cur/link`)
    lutimesSync(`${maildir}/cur/link`, 1000, 1000)
    for (let round = 0; round < 3; round += 1) expect(await service.session(maildir, 'STAT')).toBe('+OK 1 3\r\n')
    const logEntry = (links: number, example: string) =>
      `pop3d: level=warn event=files_ignored maildrop=${maildir} symbolic_links=${links} future=1 example=${example} reason="symbolic links and files with a time in the future are not listed"\n`
    expect(service.logged('files_ignored')).toEqual([logEntry(1, 'new/late')])
    unlinkSync(`${maildir}/cur/link`)
    await service.session(maildir, 'STAT')
    await service.session(maildir, 'STAT')
    expect(service.logged('files_ignored')).toEqual([logEntry(1, 'new/late'), logEntry(0, 'new/late')])
  })

  test('names each message that was sent, with the octets of the reply, at level debug', async () => {
    const service = new Service()
    const large = 'x'.repeat(100_000)
    const maildir = maildirOf('cur/A mtime=1 "a\\n"', `cur/B mtime=2 ${JSON.stringify(large)}`)
    const reply = await service.session(maildir, 'RETR 1', 'RETR 2')
    const first = '+OK \r\na\r\n.\r\n'.length
    expect(service.logged('message_sent')).toEqual([
      `pop3d: level=debug event=message_sent number=1 octets=${first}\n`,
      `pop3d: level=debug event=message_sent number=2 octets=${reply.length - first}\n`,
    ])
  })
})

test('two names of one file, as an interrupted move leaves them, are one message; DELE removes both', async () => {
  const service = new Service()
  const maildir = maildirOf('new/A "a\\n"')
  linkSync(`${maildir}/new/A`, `${maildir}/cur/A:2,`)
  expect(await service.session(maildir, 'UIDL', 'QUIT')).toBe('+OK \r\n1 A\r\n.\r\n+OK \r\n')
  expect(await service.session(maildir, 'DELE 1', 'QUIT')).toBe('+OK \r\n+OK \r\n')
  expect(stateOf(maildir)).toEqual([])
})

describe('a Maildir++ quota', () => {
  const quota = '10000S,10C\n6 3\n'

  test('gets an entry for the messages that QUIT removed, except those in the trash', async () => {
    const service = new Service()
    const maildir = maildirOf(
      'new/A mtime=1 "a\\n"',
      'cur/B:2,S mtime=2 "bb\\n"',
      'cur/C:2,T mtime=3 "ccc\\n"',
      'cur/D mtime=4 ""',
    )
    writeFileSync(`${maildir}/maildirsize`, quota)
    await service.session(maildir, 'DELE 1')
    expect(readFileSync(`${maildir}/maildirsize`, 'utf8')).toBe(quota)
    await service.session(maildir, 'DELE 1', 'DELE 2', 'DELE 3', 'QUIT')
    expect(readFileSync(`${maildir}/maildirsize`, 'utf8')).toBe(`${quota}-5 -2\n`)
    await service.session(maildir, 'QUIT')
    expect(readFileSync(`${maildir}/maildirsize`, 'utf8')).toBe(`${quota}-5 -2\n`)
  })

  test('is not made if it is missing, and a link is not followed', async () => {
    const service = new Service()
    const maildir = maildirOf('cur/A mtime=1 "a\\n"', 'cur/B mtime=2 "b\\n"')
    await service.session(maildir, 'DELE 1', 'QUIT')
    expect(readdirSync(maildir).sort()).toEqual(['cur', 'new', 'tmp'])
    writeFileSync(`${root.path}/elsewhere`, quota)
    symlinkSync(`${root.path}/elsewhere`, `${maildir}/maildirsize`)
    await service.session(maildir, 'DELE 1', 'QUIT')
    expect(readFileSync(`${root.path}/elsewhere`, 'utf8')).toBe(quota)
    expect(stateOf(maildir)).toEqual([])
  })

  test('has a limited size: a session rewrites a file of 5120 octets or more', async () => {
    const service = new Service()
    const maildir = maildirOf('cur/A "a\\n"')
    const long = quota + '1 1\n'.repeat(1300)
    writeFileSync(`${maildir}/maildirsize`, long)
    await service.session(maildir, 'DELE 1', 'QUIT')
    expect(readFileSync(`${maildir}/maildirsize`, 'utf8')).toBe(long)
  })
})
