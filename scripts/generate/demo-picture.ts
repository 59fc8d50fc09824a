import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { createInterface } from 'node:readline'
import { buildAll } from '../build.ts'
import { type TerminalLine, terminalSvg } from './terminal-svg.ts'

const root = new URL('../..', import.meta.url).pathname
const target = `${root}docs/images/demo.svg`

/**
 * Makes the picture of the README: runs the demo and the commands that its screen proposes, and
 * draws their real output.
 */
async function record(directory: string): Promise<readonly TerminalLine[]> {
  const demo = spawn(`${root}bin/auth-relay`, ['up', '--demo', '--dir', directory], {
    cwd: root,
    env: { ...process.env, POP3_PORT: '1110', POP3S_PORT: '1995', SMTP_PORT: '1025' },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const screen: string[] = []
  try {
    const lines = createInterface({ input: demo.stdout })
    for await (const line of lines) {
      screen.push(line)
      if (line.startsWith('Nothing leaves this machine')) break
    }
    const [send = '', open = '', show = ''] = screen.filter(line => line.startsWith('   ')).map(line => line.trim())
    const shown = async (
      command: string,
      select: (output: readonly string[]) => readonly string[],
    ): Promise<TerminalLine[]> => {
      const output = select(await run(command))
      return [{ type: 'typed', text: command }, ...output.map(text => ({ type: 'printed', text }) as const), BLANK]
    }
    if (show === '') throw new Error(`the demo ended without its commands on the screen: ${screen.join(' ')}`)
    const quiet = `${send} --quit-after RCPT`
    // swaks prints the whole conversation; the picture shows only the recipient and the reply.
    const recipient = (output: readonly string[]): readonly string[] => {
      const asked = output.findIndex(line => line.includes('RCPT TO'))
      return output.slice(asked, asked + 2)
    }
    const mail = (output: readonly string[]): readonly string[] =>
      output.filter(line => /^(Subject|From|To):/.test(line))
    const everything = (output: readonly string[]): readonly string[] => output
    return [
      ...(await shown(quiet, recipient)),
      ...(await shown(open, mail)),
      ...(await shown(quiet, recipient)),
      ...(await shown(show, everything)),
      ...(await shown(show.replace(' show ', ' explain 127.0.0.1 '), everything)),
    ]
  } finally {
    demo.kill('SIGTERM')
    if (demo.exitCode === null) await once(demo, 'exit')
  }
}

const BLANK: TerminalLine = { type: 'printed', text: '' }

const run = (command: string): Promise<readonly string[]> =>
  new Promise(resolve => {
    execFile('/bin/sh', ['-c', command], { cwd: root }, (_, stdout, stderr) =>
      // A refused command ends with a status other than 0; its output is shown all the same.
      resolve(`${stdout}${stderr}`.trimEnd().split('\n')),
    )
  })

await buildAll()
const directory = mkdtempSync(`${tmpdir()}/auth-relay-demo-`)
try {
  const lines = await record(directory)
  mkdirSync(`${root}docs/images`, { recursive: true })
  const places = lines.map(line => ({ ...line, text: line.text.replaceAll(directory, 'var') }))
  writeFileSync(target, terminalSvg('auth-relay up --demo', places.slice(0, -1)))
  console.log(`${target}: ${lines.length} lines`)
} finally {
  rmSync(directory, { recursive: true, force: true })
}
