import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { eventually } from '../../harness/eventually.ts'
import { freePort } from '../../harness/free-port.ts'
import { inPackage, unpackedPackage } from '../../harness/hosts/unpacked-package.ts'
import { Program, run } from '../../harness/processes/program.ts'
import { command, describeWith, ROOT } from '../../harness/runner/describe-with.ts'
import { Stack, TEST_PASSWORD } from '../../harness/stack.ts'

const root = new URL('../../..', import.meta.url).pathname

/** Commands of the two families of supervisors. */
const SUPERVISORS = {
  runit: { start: 'runsv', control: (word: string) => ['sv', word], status: ['sv', 'status'] },
  daemontools: {
    start: 'supervise',
    control: (word: string) => ['svc', { hup: '-h', exit: '-dx' }[word] ?? word],
    status: ['svstat'],
  },
} as const

describeWith(
  [
    ROOT,
    unpackedPackage('runit'),
    unpackedPackage('daemontools'),
    command('curl'),
    command('tcpserver', 'ucspi-tcp'),
    command('swaks'),
  ],
  'run scripts',
  () => {
    let stack: Stack
    const supervisors: { program: Program; stop(): Promise<void> }[] = []
    beforeAll(() => {
      stack = new Stack({ database: { dbport: 1 }, popup: { grant_wait: 0 }, authd: { socket: '', usage_socket: '' } })
      stack.account('ann', ['Subject: hello\n\nAt noon?\n'])
    })
    afterEach(async () => {
      for (const { stop } of supervisors.splice(0)) await stop()
    })
    afterAll(() => stack.stop())

    /** A copy of a service directory, with the settings of this test, under the supervisor. */
    const supervise = (family: keyof typeof SUPERVISORS, service: string, conf: string) => {
      const { start, control, status } = SUPERVISORS[family]
      const directory = `${stack.directory}/${family}-${service}`
      cpSync(`${root}deploy/runit/${service}`, directory, { recursive: true })
      writeFileSync(`${directory}/conf`, `PATH=${root}bin:$PATH\n${conf}\n`)
      const say = async (...words: readonly string[]) => {
        const { lines } = await run([...words, directory], {
          prefix: inPackage(family),
          env: { PATH: process.env['PATH'] },
        })
        return lines.join('\n')
      }
      // supervise has no log service; svscan connects the two by a pipe, as this test does.
      const joined = family === 'runit' ? '' : `| (cd ${directory}/log && ./run)`
      const program = new Program(family, ['sh', '-c', `${start} ${directory} ${joined}`], {
        prefix: inPackage(family),
      })
      supervisors.push({
        program,
        stop: async () => {
          await say(...control('exit'))
          await program.ended
        },
      })
      const log = (): string =>
        existsSync(`${directory}/log/main/current`)
          ? readFileSync(`${directory}/log/main/current`, 'utf8')
          : program.lines.join('\n')
      return {
        log,
        logged: (pattern: RegExp) =>
          eventually(
            `the log of ${service} under ${family} has ${pattern}`,
            () => pattern.exec(log()) ?? undefined,
          ).catch(error => {
            throw new Error(`${log()}\n${program.transcript()}`, { cause: error })
          }),
        control: (word: string) => say(...control(word)),
        status: () => say(...status),
      }
    }

    test.each(['runit', 'daemontools'] as const)(
      'popup under %s: serves, reloads, and is restarted after a crash',
      async family => {
        const popup = supervise(family, 'popup', `config=${stack.config}`)
        const [, port] = await popup.logged(/popup ready listen=\S+:(\d+)/)
        const login = await run(['curl', '-s', '-m', '10', `pop3://127.0.0.1:${port}/1`, '-u', `ann:${TEST_PASSWORD}`])
        expect(login.lines).toContain('Subject: hello')
        await popup.control('hup')
        await popup.logged(/event=settings_reloaded/)
        const pid = Number(/\(?pid (\d+)\)?/.exec(await popup.status())?.[1])
        process.kill(pid, 'SIGKILL')
        await popup.logged(/popup ready[\s\S]*popup ready/)
        expect(await popup.status()).toMatch(/run|up/)
        expect(await popup.status()).not.toContain(`pid ${pid})`)
      },
    )

    test.each(['authd', 'sslwrap'])('%s under runit', async service => {
      stack.configure({
        database: { dbport: 1 },
        sslwrap: { listener: [{ listen: '127.0.0.1:0', backend: '127.0.0.1:1', preamble: 'none' }] },
      })
      await supervise('runit', service, `config=${stack.config}`).logged(new RegExp(`${service} ready `))
    })

    test('wrap under runit: invalid settings are reported once, and the program is not started again', async () => {
      const wrap = supervise('runit', 'wrap', `config=${stack.config}`)
      await wrap.logged(/wrap: the gate has no service[\s\S]*stopped: correct the fault that the line above names/)
      await eventually('runsv does not start the program again', async () => (await wrap.status()).startsWith('down:'))
      expect(wrap.log().match(/the gate has no service/g)).toHaveLength(1)
    })

    test('popup for each connection, under tcpserver, with a checkpassword program', async () => {
      const { uid } = stack.account('bob')
      const checker = `${root}test/harness/pop3/checkpassword.py bob:${TEST_PASSWORD}:${uid}:${stack.directory}/mail/bob`
      const port = await freePort()
      const conf = `address=127.0.0.1 port=${port} host=mx.example.org checker="${checker}"\nSYSLOG=0; export SYSLOG`
      supervise('runit', 'popup-tcpserver', conf)
      const list = ['curl', '-s', '-m', '10', `pop3://127.0.0.1:${port}/`, '-u', `bob:${TEST_PASSWORD}`]
      await eventually('bob can log in', async () => (await run(list)).ending?.code === 0)
    })

    test('wrap for each connection, under tcpserver: the smtpd runs, and without a positive answer the relay is closed', async () => {
      const port = await freePort()
      const conf = [
        `address=127.0.0.1 port=${port} host=mx.example.org account=`,
        `smtpd="${stack.directory}/smtpd.sh example.org"`,
        'WRAP_TIMEOUT=1 DBPORT=1; export WRAP_TIMEOUT DBPORT',
      ]
      supervise('runit', 'wrap-tcpserver', conf.join('\n'))
      const swaks = ['swaks', '--server', `127.0.0.1:${port}`, '--to', 'somebody@elsewhere.example', '--helo', 'client']
      const refused = await eventually('the smtpd answers', async () => {
        const { lines } = await run(swaks)
        return lines.find(line => line.includes('553'))
      })
      expect(refused).toContain("that domain isn't in my list of allowed rcpthosts")
    })
  },
)
