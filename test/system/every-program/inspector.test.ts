import { mkdirSync, readFileSync, readlinkSync, realpathSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { afterEach, describe, expect, onTestFinished, test } from 'vitest'
import { Pop3Conversation } from '../../harness/pop3/pop3-conversation.ts'
import { Demo } from '../../harness/processes/demo.ts'
import { signalUntilInspected } from '../../harness/processes/inspector-control.ts'
import { descendantsOf, internetSocketsOf } from '../../harness/processes/process-status.ts'
import { Program } from '../../harness/processes/program.ts'
import { DEBIAN_PYTHON, describeWith } from '../../harness/runner/describe-with.ts'
import { SmtpConversation } from '../../harness/smtp/smtp-conversation.ts'
import { commandOf, Stack, TEST_PASSWORD } from '../../harness/stack.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const root = new URL('../../..', import.meta.url).pathname
const NODE = realpathSync(process.execPath)
const FLAG = '--disable-sigusr1'

/** The command in a script of package.json that starts `auth-relay`. */
function wordsOfScript(name: string): readonly string[] {
  const manifest: unknown = JSON.parse(readFileSync(`${root}package.json`, 'utf8'))
  const scripts: unknown = typeof manifest === 'object' && manifest !== null ? Reflect.get(manifest, 'scripts') : {}
  const script: unknown = typeof scripts === 'object' && scripts !== null ? Reflect.get(scripts, name) : undefined
  const [node, ...words] = String(script).split(' && ').at(-1)?.split(' ') ?? []
  if (node !== 'node') throw new Error(`npm run ${name} is no start of Node.js: ${script}`)
  return [process.execPath, ...words.filter(word => word !== 'up' && word !== '--demo')]
}

const nodesOf = (pid: number) =>
  descendantsOf(pid).filter(({ pid: each }) => {
    const program = (() => {
      try {
        return readlinkSync(`/proc/${each}/exe`)
      } catch {
        return undefined // the process has ended meanwhile
      }
    })()
    // The demo's smtpd may run from a copy.
    return program === NODE || program?.endsWith('/bin/node') === true
  })

const listenersOf = (pids: readonly number[]) =>
  pids.flatMap(pid => internetSocketsOf(pid).filter(({ state }) => state === 'listening'))

describe('SIGUSR1 opens no inspector in any process of the stack, and all processes continue', () => {
  const opened: Socket[] = []
  afterEach(() => {
    for (const socket of opened.splice(0)) socket.destroy()
  })
  const dial = (port: number): Socket => {
    const socket = connect(port, '127.0.0.1')
    opened.push(socket)
    return socket
  }

  test.each([
    ['started by the launcher', [`${root}bin/auth-relay`]],
    ['started by npm start', wordsOfScript('start')],
    ['started by npm run dev', wordsOfScript('dev')],
    ['started without an option, as on an older Node.js', commandOf('auth-relay')],
  ])('%s', async (_name, words) => {
    const { path, remove } = temporaryDirectory()
    const demo = new Demo(`${path}/var`, { command: words, cluster: 'earlier' })
    onTestFinished(async () => {
      await demo.program.stop(30_000)
      remove()
    })
    await demo.ready()
    const clear = Pop3Conversation.over(dial(demo.port('popup')))
    await clear.login('demo', 'demo')
    const secure = Pop3Conversation.over(dial(demo.port('sslwrap')), { tls: true })
    await secure.login('demo', 'demo')
    const mail = SmtpConversation.over(dial(demo.port('wrap')))
    await mail.expectSmtp(/^220/)

    const processes = nodesOf(demo.program.pid)
    const names = processes.flatMap(({ commandLine }) => {
      const [script = '', word = ''] = commandLine.filter(each => !each.startsWith('-') && each !== 'tsx').slice(1)
      const worker = commandLine.find(each => each === '--login' || each === '--worker') ?? ''
      const name = /(?:\/src)?\/([\w-]+)(?:\/main\.ts|\.js)$/.exec(script)?.[1] ?? script
      return `${name} ${name === 'auth-relay' ? word : worker}`.trim()
    })
    expect([...new Set(names)].sort()).toEqual(
      expect.arrayContaining(
        [
          'auth-relay status-page',
          'auth-relay up',
          'authd',
          'popup',
          'popup --login',
          'pop3d --worker',
          'sslwrap',
        ].concat(['sslwrap --worker', 'wrap']),
      ),
    )
    expect(names.some(name => /smtpd/.test(name))).toBe(true)
    const pids = processes.map(({ pid }) => pid)
    const before = listenersOf(pids)

    await signalUntilInspected(pids)

    expect(listenersOf(pids)).toEqual(before)
    expect(demo.program.transcript()).not.toMatch(/inspector|Debugger listening/)
    expect(nodesOf(demo.program.pid).map(({ pid }) => pid)).toEqual(expect.arrayContaining(pids))
    for (const session of [clear, secure]) {
      await session.ask('STAT', /^\+OK \d/)
      await session.quit()
    }
    await mail.quit()
    const again = Pop3Conversation.over(dial(demo.port('sslwrap')), { tls: true })
    await again.login('demo', 'demo')
    await again.quit()
    const { code } = await SmtpConversation.over(dial(demo.port('wrap'))).askFor('bob@elsewhere.example')
    expect(code).toBe(250)
    expect((await fetch(`http://127.0.0.1:${demo.port('status-page')}/`)).status).toBe(200)
    // The purpose of the signal: authd logs its counts.
    await demo.program.waitForLine(/^authd: .*event=counters_reported /)
  })
})

describeWith([DEBIAN_PYTHON], 'SIGUSR1 changes nothing in a program that serves one connection', () => {
  const stack = new Stack()
  const ann = stack.account('ann', ['Subject: hello\n\nAt noon?\n'])
  const home = ann.maildir.replace(/\/Maildir$/, '')
  const environment = { PROTO: 'TCP', TCPREMOTEIP: '192.0.2.7', TCPREMOTEPORT: '40000', SYSLOG: '0' }
  const checker = [`${root}test/harness/pop3/checkpassword.py`, `ann:${TEST_PASSWORD}:${ann.uid}:${home}`]
  afterEach(() => stack.stopPrograms())

  /** With the option, as the launcher starts it, and without. */
  const starts = (...[node = '', ...words]: readonly string[]) => [
    ['with it', [node, FLAG, ...words]] as const,
    ['without', [node, ...words]] as const,
  ]

  test.each(starts(...commandOf('popup', 'pop.example.org', ...checker, ...commandOf('pop3d', 'Maildir'))))(
    'popup HOST CHECKER PROG %s',
    async (_name, words) => {
      const popup = new Program('popup', words, { env: environment })
      onTestFinished(() => void popup.stop())
      await popup.waitForLine(/^\+OK <.*@pop\.example\.org>/)
      await signalUntilInspected([popup.pid])
      expect(listenersOf([popup.pid])).toEqual([])
      popup.child.stdin?.write(`USER ann\r\nPASS ${TEST_PASSWORD}\r\n`)
      await popup.waitFor('the password is right', () => popup.lines.filter(line => line.startsWith('+OK')).length >= 3)
      const processes = nodesOf(popup.pid).map(({ pid }) => pid)
      expect(processes).toHaveLength(2)
      // No other process of the owner can trace pop3d, because /proc gives its files to root.
      expect(processes.map(pid => statSync(`/proc/${pid}/environ`).uid)).toEqual([0, 0])
      await signalUntilInspected(processes)
      popup.child.stdin?.write('STAT\r\nQUIT\r\n')
      await popup.waitForLine(/^\+OK 1 \d+/)
      await popup.ended
      expect(popup.transcript()).not.toMatch(/inspector|Debugger listening/)
    },
  )

  test.each([
    ['with the option', [FLAG]],
    ['without it', []],
  ])('wrap SMTPD %s: the smtpd has the default signal actions', async (_name, options) => {
    const directory = `${stack.directory}/exec${options.length}`
    mkdirSync(directory)
    writeFileSync(`${directory}/smtpd`, '#!/bin/sh\necho runs; grep -E "Sig(Blk|Ign|Pnd)" /proc/self/status\n', {
      mode: 0o755,
    })
    // A gate that does not answer. wrap waits for it, and receives the signal meanwhile.
    const queried = Promise.withResolvers<void>()
    const answer = Promise.withResolvers<void>()
    const gate = createServer(socket => {
      socket.on('error', () => {})
      queried.resolve()
      void answer.promise.then(() => socket.end('no\n'))
    }).listen(`${directory}/query.sock`)
    onTestFinished(() => void gate.close())
    const execMode = new Program('wrap', [process.execPath, ...options, `${root}dist/wrap.cjs`, `${directory}/smtpd`], {
      env: {
        ...environment,
        WRAP_ASK: `unix:${directory}/query.sock`,
        WRAP_TIMEOUT: '30',
        QMAILDIR: '/nonexistent',
      },
    })
    await queried.promise
    await signalUntilInspected([execMode.pid])
    expect(listenersOf([execMode.pid])).toEqual([])
    answer.resolve()
    expect(await execMode.ended).toEqual({ code: 0, signal: null })
    expect(execMode.lines.filter(line => !line.startsWith('wrap:'))).toEqual([
      'runs',
      expect.stringMatching(/^SigPnd:\s+0+$/),
      expect.stringMatching(/^SigBlk:\s+0+$/),
      expect.stringMatching(/^SigIgn:\s+0+$/),
    ])
  })

  test('no foreign program gets NODE_OPTIONS of auth-relay', async () => {
    const path = `${stack.directory}/show`
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the shell's, not ours
    writeFileSync(path, '#!/bin/sh\necho "shown ${NODE_OPTIONS-unset}"\n', { mode: 0o755 })
    const options = { env: { ...environment, NODE_OPTIONS: '--max-old-space-size=300', QMAILDIR: '/nonexistent' } }
    const execMode = new Program('wrap', [process.execPath, `${root}dist/wrap.cjs`, path], {
      env: { ...options.env, RELAYCLIENT: '' },
    })
    await execMode.ended
    expect(execMode.lines).toContain('shown unset')
    const popup = new Program('popup', commandOf('popup', 'pop.example.org', ...checker, path), options)
    popup.child.stdin?.end(`USER ann\r\nPASS ${TEST_PASSWORD}\r\n`)
    await popup.waitForLine(/^shown unset/)
    await popup.ended
  })
})
