import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { programBeside } from '../../src/daemon/worker-process.ts'
import { eventually } from '../harness/eventually.ts'
import { isRoot, makeMaildir, OWNER, parseFile, stateOf } from '../harness/maildir.ts'
import { Pop3Client } from '../harness/pop3-client.ts'
import { PROGRAM, WorkerForTests } from '../harness/pop3d.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

const root = temporaryDirectory()
afterAll(() => root.remove())

const started: WorkerForTests[] = []
afterEach(async () => {
  for (const worker of started.splice(0)) await worker.stop()
})
async function start(
  ...settings: Parameters<typeof WorkerForTests.start> extends [string, ...infer Rest] ? Rest : never
) {
  const worker = await WorkerForTests.start(root.path, ...settings)
  started.push(worker)
  return worker
}
const maildirOf = (...files: readonly string[]) => makeMaildir(root.path, files.map(parseFile))

test('the program beside another is the one that is built with it', () => {
  expect(programBeside('pop3d', '/opt/auth-relay/dist/popup.js')).toBe('/opt/auth-relay/dist/pop3d.js')
  expect(PROGRAM).toMatch(/\/dist\/pop3d\.js$/)
})

describe('a worker', () => {
  test('serves many sessions on many maildrops, pipelined behind the ticket', async () => {
    const worker = await start()
    const maildirs = Array.from({ length: 20 }, (_, index) => maildirOf(`new/${index} "number ${index}\\n"`))
    await Promise.all(
      maildirs.map(async (maildir, index) => {
        const client = new Pop3Client(worker.open(worker.ticket({ maildir }), 'STAT\r\nRETR 1\r\nQUIT\r\n'))
        const octets = `number ${index}\r\n`.length
        expect(await client.rest()).toBe(`+OK \r\n+OK 1 ${octets}\r\n+OK \r\nnumber ${index}\r\n\r\n.\r\n+OK \r\n`)
        expect(stateOf(maildir)).toEqual([`cur/${index}:2, "number ${index}\\n"`])
      }),
    )
  })

  test('runs as the owner and as nobody else', async () => {
    const worker = await start()
    const client = new Pop3Client(worker.open(worker.ticket({ maildir: maildirOf() })))
    expect(await client.line()).toBe('+OK ')
    const status = readFileSync(`/proc/${worker.worker.child.pid}/status`, 'utf8')
    const uid = isRoot ? OWNER.uid : process.getuid?.()
    const gid = isRoot ? OWNER.gid : process.getgid?.()
    expect(/^Uid:\s+(.*)$/m.exec(status)?.[1]).toBe(`${uid}\t${uid}\t${uid}\t${uid}`)
    expect(/^Gid:\s+(.*)$/m.exec(status)?.[1]).toBe(`${gid}\t${gid}\t${gid}\t${gid}`)
    if (isRoot) expect(/^Groups:[ \t]*(.*)$/m.exec(status)?.[1]?.trim()).toBe('')
    expect(await client.say('QUIT')).toBe('+OK ')
  })

  test.runIf(isRoot)('does not start as uid 0', async () => {
    const worker = await start({ ids: null })
    expect((await worker.worker.ended).code).toBe(100)
  })

  test('believes no ticket but the keeper’s, and each only once', async () => {
    const worker = await start()
    const maildir = maildirOf('cur/A "x\\n"')
    const refusal = '-ERR [SYS/TEMP] temporary authentication failure\r\n'
    const answerTo = (ticket: string) => new Pop3Client(worker.open(ticket, 'STAT\r\nQUIT\r\n')).rest()
    const good = worker.ticket({ maildir })
    expect(await answerTo(good)).toBe('+OK \r\n+OK 1 3\r\n+OK \r\n')
    expect(await answerTo(good)).toBe(refusal)
    const forged = worker.ticket({ maildir }, randomBytes(32))
    const other = worker.ticket({ maildir }).replace(/maildir=\S+/, 'maildir=%2Fetc')
    const expired = worker.ticket({ maildir, expires: Math.floor(Date.now() / 1000) })
    for (const ticket of [forged, other, expired, '', 'STAT', 'x'.repeat(20_000)]) {
      expect(await answerTo(ticket)).toBe(refusal)
    }
  })

  test('tells what is wrong with a maildrop', async () => {
    const worker = await start()
    const answerTo = (maildir: string) => new Pop3Client(worker.open(worker.ticket({ maildir }))).rest()
    expect(await answerTo('/nonexistent')).toBe('-ERR this user has no $HOME/Maildir\r\n')
    expect(await answerTo('/etc/passwd')).toBe('-ERR this user has no $HOME/Maildir\r\n')
    expect(await answerTo('/')).toBe('-ERR unable to scan $HOME/Maildir\r\n')
  })

  test('goes away when nobody is there, and not before', async () => {
    const worker = await start({ workerIdle: 1 })
    const client = new Pop3Client(worker.open(worker.ticket({ maildir: maildirOf() })))
    expect(await client.line()).toBe('+OK ')
    const openedAt = performance.now()
    // Twice as long as it would wait without a session.
    await eventually('two seconds', () => performance.now() - openedAt > 2000)
    expect(await client.say('NOOP')).toBe('+OK ')
    expect(await client.say('QUIT')).toBe('+OK ')
    expect(await worker.worker.ended).toEqual({ code: 0, signal: null })
  })

  test.each(['SIGTERM', 'the end of its keeper'])('lets its sessions finish after %s', async how => {
    const worker = await start()
    const maildir = maildirOf('new/A "x\\n"')
    const client = new Pop3Client(worker.open(worker.ticket({ maildir })))
    expect(await client.line()).toBe('+OK ')
    if (how === 'SIGTERM') worker.worker.child.kill('SIGTERM')
    else worker.worker.channel.close()
    expect(await client.say('DELE 1')).toBe('+OK ')
    expect(await client.say('QUIT')).toBe('+OK ')
    expect((await worker.worker.ended).code).toBe(0)
    expect(stateOf(maildir)).toEqual([])
  })

  test('a crash removes nothing, and the next worker on the socket goes on', async () => {
    const worker = await start()
    const maildir = maildirOf('new/A "x\\n"')
    const client = new Pop3Client(worker.open(worker.ticket({ maildir })))
    expect(await client.line()).toBe('+OK ')
    expect(await client.say('DELE 1')).toBe('+OK ')
    worker.worker.child.kill('SIGKILL')
    expect(await client.rest()).toBe('')
    expect(stateOf(maildir)).toEqual(['new/A "x\\n"'])
  })

  test('two sessions on one maildrop see the same messages, and each deletes its own', async () => {
    const worker = await start()
    const maildir = maildirOf('cur/A "x\\n"', 'cur/B "y\\n"')
    const [one, two] = [0, 1].map(() => new Pop3Client(worker.open(worker.ticket({ maildir }))))
    if (one === undefined || two === undefined) throw new Error('two clients')
    expect([await one.line(), await two.line()]).toEqual(['+OK ', '+OK '])
    expect(await one.say('DELE 1')).toBe('+OK ')
    expect(await two.say('STAT')).toBe('+OK 2 6')
    expect(await one.say('QUIT')).toBe('+OK ')
    expect(await two.say('RETR 1')).toBe('-ERR unable to open that message')
    expect(await two.say('DELE 1')).toBe('+OK ')
    expect(await two.say('QUIT')).toBe('+OK ')
    expect(stateOf(maildir)).toEqual(['cur/B "y\\n"'])
  })

  test('lock = "exclusive" tells the second session to come later', async () => {
    const worker = await start({ lock: 'exclusive' })
    const other = await start({ lock: 'exclusive' })
    const maildir = maildirOf('cur/A "x\\n"')
    const holder = new Pop3Client(worker.open(worker.ticket({ maildir })))
    expect(await holder.line()).toBe('+OK ')
    for (const second of [worker, other]) {
      const refused = new Pop3Client(second.open(second.ticket({ maildir })))
      expect(await refused.rest()).toBe('-ERR [IN-USE] maildrop is in use\r\n')
    }
    expect(await holder.say('QUIT')).toBe('+OK ')
    const next = new Pop3Client(other.open(other.ticket({ maildir }), 'QUIT\r\n'))
    expect(await next.rest()).toBe('+OK \r\n+OK \r\n')
  })

  test('a lock whose process is gone holds nobody up', async () => {
    const maildir = maildirOf('cur/A "x\\n"')
    const worker = await start({ lock: 'exclusive' })
    const holder = new Pop3Client(worker.open(worker.ticket({ maildir })))
    expect(await holder.line()).toBe('+OK ')
    worker.worker.child.kill('SIGKILL')
    await worker.worker.ended
    const other = await start({ lock: 'exclusive' })
    const next = new Pop3Client(other.open(other.ticket({ maildir }), 'QUIT\r\n'))
    expect(await next.rest()).toBe('+OK \r\n+OK \r\n')
    // What is no lock of ours is stale as well.
    writeFileSync(`${maildir}/pop3d.lock`, 'rubbish')
    const again = new Pop3Client(other.open(other.ticket({ maildir }), 'QUIT\r\n'))
    expect(await again.rest()).toBe('+OK \r\n+OK \r\n')
  })
})
