import { inheritance } from '../ucspi/run-next.ts'

// First of all: what this process was given, before anything is opened. All else is loaded when it is needed.
const taken = inheritance()
const script = process.argv[1] ?? ''
const { runCommand, runDaemon } = await import('../daemon/lifecycle.ts')

await runCommand('wrap', async () => {
  const { parseCommandLine, USAGE } = await import('./command-line.ts')
  const invocation = parseCommandLine(process.argv.slice(2), script)
  switch (invocation.type) {
    case 'help':
      process.stdout.write(USAGE)
      return 0
    case 'version': {
      const { default: manifest } = await import('../../package.json', { with: { type: 'json' } })
      process.stdout.write(`wrap (auth-relay) ${manifest.version}\n`)
      return 0
    }
    case 'exec': {
      const { execDoor } = await import('./exec-door.ts')
      const status = await execDoor({ ...invocation, config: invocation.config, inheritance: taken, script })
      // An open question to the database must not hold up the client.
      return process.exit(status)
    }
    case 'daemon': {
      const { loadSettings } = await import('./load-settings.ts')
      const { startGate } = await import('./gate-daemon.ts')
      const settings = loadSettings(invocation, process.env)
      await runDaemon('wrap', () => startGate(settings))
      return 0
    }
  }
})
