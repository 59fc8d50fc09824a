import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import * as v from 'valibot'
import { afterAll, expect, test } from 'vitest'
import { parseSettings } from '../../src/settings/settings.ts'
import { command, describeWith, ROOT } from '../harness/describe-with.ts'
import { freePort } from '../harness/free-port.ts'
import { Program, run } from '../harness/program.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

// No container engine is needed: what an engine would read is read, and what it would run is run in namespaces of this host.

const root = new URL('../..', import.meta.url).pathname
const folder = `${root}deploy/container`
/** The account of the image. */
const ACCOUNT = '10110'

/** The instructions of the Containerfile, by stage. */
const stages = readFileSync(`${folder}/Containerfile`, 'utf8')
  .split('\n')
  .filter(line => /^[A-Z]/.test(line))
  .reduce<{ name: string; words: string }[][]>((found, line) => {
    const [, name = '', words = ''] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? []
    if (name === 'FROM') found.push([])
    found.at(-1)?.push({ name, words })
    return found
  }, [])
const [build = [], image = []] = stages
const instructions = (stage: readonly { name: string; words: string }[], name: string): readonly string[] =>
  stage.filter(instruction => instruction.name === name).map(({ words }) => words)

test('the Containerfile: two stages, an ordinary user at the end, a health check, sources that exist', () => {
  expect(stages).toHaveLength(2)
  expect(instructions(image, 'USER').at(-1)).toBe(`${ACCOUNT}:${ACCOUNT}`)
  expect(instructions(image, 'HEALTHCHECK')).toHaveLength(1)
  const known = ['FROM', 'RUN', 'COPY', 'WORKDIR', 'ENV', 'USER', 'EXPOSE', 'STOPSIGNAL', 'HEALTHCHECK', 'CMD']
  expect(stages.flat().filter(({ name }) => !known.includes(name))).toEqual([])
  for (const copied of instructions(image, 'COPY').filter(words => !words.startsWith('--from='))) {
    expect(existsSync(root + copied.split(' ')[0])).toBe(true)
  }
})

test('the settings of the containers are settings', () => {
  const { settings } = parseSettings(readFileSync(`${folder}/auth-relay.toml`, 'utf8'), 'auth-relay.toml')
  expect(settings.database.dbhost).toBe('postgres')
})

const Names = v.optional(v.array(v.string()), [])
const Compose = v.object({
  services: v.record(
    v.string(),
    v.object({
      image: v.string(),
      command: Names,
      secrets: Names,
      volumes: Names,
      depends_on: v.optional(v.record(v.string(), v.object({ condition: v.string() })), {}),
      healthcheck: v.object({ test: Names, disable: v.optional(v.boolean()) }),
      read_only: v.optional(v.boolean()),
      cap_drop: Names,
    }),
  ),
  volumes: v.record(v.string(), v.unknown()),
  secrets: v.record(v.string(), v.object({ file: v.string() })),
})

describeWith([command('python3')], 'the compose file', () => {
  const load = 'import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)'
  const read = () =>
    v.parse(
      Compose,
      JSON.parse(execFileSync('/usr/bin/python3', ['-c', load, `${folder}/compose.yaml`], { encoding: 'utf8' })),
    )

  test('every name that a service uses is there; each secret goes to whom it concerns alone', () => {
    const { services, volumes, secrets } = read()
    expect(Object.keys(services).sort()).toEqual(['authd', 'gate', 'migrate', 'popup', 'postgres', 'sslwrap'])
    for (const service of Object.values(services)) {
      for (const secret of service.secrets) expect(secrets).toHaveProperty(secret)
      for (const volume of service.volumes) expect(volumes).toHaveProperty(volume.split(':')[0] ?? '')
      for (const other of Object.keys(service.depends_on)) expect(services).toHaveProperty(other)
    }
    const holders = (secret: string) =>
      Object.entries(services).flatMap(([name, service]) => (service.secrets.includes(secret) ? [name] : []))
    expect(holders('dbpass')).toEqual(['migrate', 'authd'])
    expect(holders('wrap_dbpass')).toEqual(['migrate', 'gate'])
    expect(holders('tls_key')).toEqual(['sslwrap'])
    expect(holders('passwd')).toEqual(['popup'])
  })

  test('ours have no rights to lose, and a health check of their own', () => {
    const ours = Object.entries(read().services).filter(([, { image: name }]) => name === 'auth-relay')
    expect(ours).toHaveLength(5)
    for (const [name, service] of ours) {
      expect(service.cap_drop).toEqual(['ALL'])
      expect(service.read_only).toBe(true)
      if (name !== 'migrate') expect(service.healthcheck.test[2]).toBe('/opt/auth-relay/healthcheck.mjs')
    }
  })
})

describeWith(
  [ROOT, command('npm', 'nodejs'), command('unshare', 'util-linux'), command('git')],
  'the steps of the image',
  () => {
    const { path, remove } = temporaryDirectory()
    const opt = `${path}/opt`
    /** Words before a command that sees the files of the image under /opt. */
    const inImage = ['unshare', '--mount', 'sh', '-c', 'mount --bind "$1" /opt && shift && exec "$@"', 'sh', opt]
    const PATH = `/opt/auth-relay/node_modules/.bin:/usr/bin:/bin`
    afterAll(remove)

    test('the build stage, command by command, in a copy of what is tracked', async () => {
      const ignored = readFileSync(`${root}.dockerignore`, 'utf8').trim().split('\n')
      const tracked = execFileSync('git', ['ls-files'], { cwd: root, encoding: 'utf8' }).trim().split('\n')
      for (const file of tracked.filter(
        name => !ignored.some(entry => name === entry || name.startsWith(`${entry}/`)),
      )) {
        mkdirSync(dirname(`${path}/src/${file}`), { recursive: true })
        cpSync(root + file, `${path}/src/${file}`, { verbatimSymlinks: true })
      }
      mkdirSync(opt)
      const ownPath = (process.env['PATH'] ?? '').split(':').filter(entry => !entry.includes('node_modules'))
      for (const step of instructions(build, 'RUN')) {
        const done = await run(['sh', '-ec', step], {
          prefix: inImage,
          cwd: `${path}/src`,
          env: { PATH: ownPath.join(':'), HOME: process.env['HOME'] },
        })
        expect(done.ending, `${step}\n${done.transcript()}`).toEqual({ code: 0, signal: null })
      }
      cpSync(`${folder}/healthcheck.mjs`, `${opt}/auth-relay/healthcheck.mjs`)
    }, 600_000)

    test('a container of it: popup as an ordinary user without any right; the health check sees it live, and gone', async () => {
      const port = await freePort()
      for (const name of ['run', 'state']) {
        mkdirSync(`${path}/${name}`)
        execFileSync('chown', [`${ACCOUNT}:${ACCOUNT}`, `${path}/${name}`])
      }
      for (const name of ['passwd', 'sslhack']) {
        writeFileSync(`${path}/${name}`, 'not a secret\n', { mode: 0o600 })
        execFileSync('chown', [`${ACCOUNT}:${ACCOUNT}`, `${path}/${name}`])
      }
      const nobody = ['setpriv', `--reuid=${ACCOUNT}`, `--regid=${ACCOUNT}`, '--clear-groups', '--inh-caps=-all']
      const env = {
        PATH,
        RUN_DIR: `${path}/run`,
        STATE_DIR: `${path}/state`,
        POPUP_LISTEN: `127.0.0.1:${port}`,
        POPUP_PASSWD_FILE: `${path}/passwd`,
        SSL_HACK_PASS: `${path}/sslhack`,
      }
      const words = ['popup', '--config', `${path}/auth-relay.toml`]
      cpSync(`${folder}/auth-relay.toml`, `${path}/auth-relay.toml`)
      const popup = new Program('popup', words, { prefix: [...inImage, ...nobody], env })
      await popup.waitForLine(/^popup ready/)
      const check = async () => {
        const [, line = ''] = /CMD (\[.*\])$/.exec(instructions(image, 'HEALTHCHECK')[0] ?? '') ?? []
        const health = v.parse(v.array(v.string()), JSON.parse(line)).map(word => (word === '1110' ? `${port}` : word))
        return (await run(health, { prefix: [...inImage, ...nobody], env: { PATH } })).ending?.code
      }
      expect(await check()).toBe(0)
      expect(await popup.stop()).toEqual({ code: 0, signal: null })
      expect(await check()).toBe(1)
    })
  },
)
